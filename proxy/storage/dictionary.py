"""The dictionary of packed timelines: an answered call as `proxy.storage.chunks` packs it, and lines of other calls.

Part of the format: a change of this text makes older stores unreadable, and needs a new SCHEMA_VERSION.
"""

from __future__ import annotations

from typing import Final

__all__ = ["DICTIONARY"]

DICTIONARY: Final = (
    rb'"SIP/2.0 400 Bad Request","SIP/2.0 403 Forbidden","SIP/2.0 404 Not Found","SIP/2.0 408 Request Timeout",'
    rb'"SIP/2.0 480 Temporarily Unavailable","SIP/2.0 486 Busy Here","SIP/2.0 487 Request Terminated","SIP/2.0 '
    rb'488 Not Acceptable Here","SIP/2.0 500 Server Internal Error","SIP/2.0 503 Service Unavailable","SIP/2.0 '
    rb'603 Decline","SIP/2.0 183 Session Progress","CANCEL sip:","Retry-After: ","Session-Expires: 1800;refresh'
    rb'er=uac","Min-SE: 90","Supported: timer, 100rel","Privacy: none","Record-Route: <sip:;transport=tls;r2=on'
    rb';lr>","Via: SIP/2.0/TLS :5061;branch=z9hG4bK","tls::5061","tcp:","Contact: <sip:trunkline@:5061;transpor'
    rb't=tls>","sip:proj_@sip.api.openai.com;transport=tls","To: <sip:proj_@sip.api.openai.com;transport=tls>",'
    rb'"m=audio RTP/SAVP 0 8 101","a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:****","a=rtcp:","a=rtpmap:107 opus'
    rb'/48000/2","hop-failed","{\"why\":[","\"retry\",{\"delay_s\":0.2,\"rules\":null,\"target\":null}]","\"nex'
    rb't\":\"retry in 0.2 s\"","\"attempt-end\",{\"status\":400,\"cause\":[","\"minimal\"","rule:minimal/",[[0,'
    rb'"a",0,"call-start",{"flow":[0],"trunk":[2],"call_id":[3],"from":[4],"to":[5],"uri":[6],"twilio_call_sid"'
    rb':[7],"user_agent":[8]}],[0,"a",0,0,0,1,[9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,2,25,26,27,28,29,'
    rb'30,31,32,33,34,35,36,37,2]],[0,"a",0,1,0,1,[38,10,11,12,17,13,39,2,2]],[0,"b",1,"attempt-start",{"attemp'
    rb't_":1,"target":[40],"uri":[41],"rules":[42],"rules_version":[43],"call_id":[44]}],[0,"b",1,1,45,1,[46,47'
    rb",48,49,50,51,52,53,54,55,20,21,23,56,57,58,59,60,61,2,25,62,27,28,29,30,31,32,33,34,35,36,37,2],[[63,64,"
    rb"64,65,66,67,68,69,69,69,69,69,69,70,70,71,69,69,69,69,69,69,69,70,70,70,71],[2,1,1,1,1,0,1,1,1,1,1,1,1,1"
    rb",1,1,1,1,1,1,1,1,1,1,1,1,1],[1,6,5,15,16,0,0,0,0,0,0,2,2,2,4,5,0,1,2,3,4,5,6,14,15,16,17],[26,16,15,-1,-"
    rb"1,9,10,11,12,13,14,17,18,19,22,24,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1],[62,55,54,56,57,46,-1,-1,-1,-1,-1,-1"
    rb',-1,-1,-1,-1,47,48,49,50,51,52,53,58,59,60,61]]],[0,"b",1,0,45,1,[38,47,49,50,51,52,72,39,2,2]],[0,"b",1'
    rb',0,45,1,[73,47,49,74,51,52,72,39,2,2]],[0,"a",1,1,0,1,[73,10,11,75,13,17,53,58,76,39,2,2],[[68,69,69,69,'
    rb"69,69,71,69,69,69,69,69,69,70,70,71],[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],[0,0,0,0,0,0,0,0,1,2,3,4,5,6,7,8]"
    rb",[47,49,74,51,52,72,39,-1,-1,-1,-1,-1,-1,-1,-1,-1],[-1,-1,-1,-1,-1,-1,-1,10,11,75,13,17,53,58,76,39]]],["
    rb'0,"b",1,0,45,1,[77,47,49,74,51,52,72,78,2,25,79,80,81,29,82,33,34,35,31,2]],[0,"b",1,1,45,1,[83,84,85,49'
    rb',74,51,86,39,2,2]],[0,"a",1,1,0,1,[77,10,11,75,13,17,53,23,58,76,78,2,25,79,80,81,29,82,33,34,35,31,2],['
    rb"[87,68,69,69,69,69,69,71,69,69,69,69,69,69,70,70,71],[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],[7,0,0,0,0,0,0,"
    rb"0,0,1,2,3,4,5,7,8,9],[-1,47,49,74,51,52,72,78,-1,-1,-1,-1,-1,-1,-1,-1,-1],[23,-1,-1,-1,-1,-1,-1,-1,10,11"
    rb',75,13,17,53,58,76,78]]],[0,"a",1,"call-answered",{"setup_s":0.0}],[0,"b",1,"attempt-end",{"attempt_":1,'
    rb'"target":[40],"uri":[41],"rules":[42],"rules_version":[43],"call_id":[44],"flow":[88],"status":200,"reas'
    rb'on":[89],"cause":[90],"duration_s":0.0}],[0,"a",1,0,0,1,[91,92,11,75,93,85,17,39,2,2]],[0,"a",1,0,0,1,[9'
    rb'4,95,11,75,96,85,17,97,39,2,2]],[0,"a",1,1,0,1,[77,95,11,75,17,96,58,76,39,2,2]],[0,"b",1,1,45,1,[98,99,'
    rb"100,49,74,51,101,97,58,59,39,2,2],[[67,68,69,69,69,69,69,71,69,69,69,69,69,69,70,70,71],[0,1,1,1,1,1,1,1"
    rb",1,1,1,1,1,1,1,1,1],[0,0,0,0,0,0,0,1,0,1,2,3,4,5,7,8,9],[94,95,11,75,96,85,17,39,-1,-1,-1,-1,-1,-1,-1,-1"
    rb',-1],[98,-1,-1,-1,-1,-1,-1,-1,99,100,49,74,51,101,58,59,39]]],[0,"",1,"call-end",{"flow":[0],"trunk":[2]'
    rb',"call_id":[3],"from":[4],"to":[5],"uri":[6],"twilio_call_sid":[7],"user_agent":[8],"outcome":[90],"stat'
    rb'us":200,"reason":[89],"ended_by":[102],"detail":[103],"duration_s":0.0,"setup_s":0.0,"talk_s":0.0,"tags"'
    rb':[-1,[]]}],[0,"b",1,0,45,1,[77,99,49,74,51,101,72,39,2,2]]],["udp:","8-1311@","sip:+1555*****@","Twilio '
    rb'Gateway","INVITE sip:+1555*****@ SIP/2.0","Via: SIP/2.0/UDP ;branch=z9hG4bK","From: <sip:+1555*****@>;ta'
    rb'g=_uac","To: <sip:+1555*****@>","CSeq: INVITE","Max-Forwards: 60","P-Asserted-Identity: <sip:+1555*****@'
    rb'2:5060>","Diversion: <sip:+1555*****@>;reason=unconditional","Call-ID: ","Contact: <sip:+1555*****@;tran'
    rb'sport=UDP>","Allow: ACK,BYE,CANCEL,INVITE,OPTIONS,REFER,NOTIFY","X-Twilio-AccountSid: AC","X-Twilio-Call'
    rb'Sid: CA","User-Agent: Twilio Gateway","Content-Type: application/sdp","Content-Length: ","o=root   IN IP'
    rb'4 ","s=Twilio Media Gateway","c=IN IP4 ","t=0 0","m=audio  RTP/AVP 0 8 101","a=rtpmap:0 PCMU/8000","a=rt'
    rb'pmap:8 PCMA/8000","a=rtpmap:101 telephone-event/8000","a=fmtp:101 0-16","a=ptime:20","a=maxptime:20","a='
    rb'sendrecv","SIP/2.0 100 Trying","Content-Length: 0","main","sip:proj_@","twilio-openai","INVITE sip:proj_'
    rb'@ SIP/2.0","Via: SIP/2.0/UDP ;branch=z9hG4bK;rport","Max-Forwards: 59","From: <sip:+1555*****@>;tag=","C'
    rb'Seq: 1 INVITE","Contact: <sip:trunkline@>","P-Asserted-Identity: <sip:+1555*****@>","X-Trunkline-Call-ID'
    rb': ","X-Trunkline-Attempt: 1","Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, PRACK, UPDATE, INFO, MESSAGE, NO'
    rb'TIFY, REFER","User-Agent: Trunkline","Supported: timer","rule:twilio-openai/private-origin","rule:twilio'
    rb'-openai/identity-hosts","rule:twilio-openai/call-id-header","rule:twilio-openai/attempt-header","builtin'
    rb':target","builtin:topology","builtin:identity","builtin:capabilities","builtin:length","Contact: <sip:OA'
    rb'I@>","SIP/2.0 180 Ringing","To: <sip:+1555*****@>;tag=_uas","To: <sip:+1555*****@>;tag=","Server: Trunkl'
    rb'ine","SIP/2.0 200 OK","o=-   IN IP4 ","s=OAI","m=audio  RTP/AVP 0 101","ACK sip:OAI@ SIP/2.0","Max-Forwa'
    rb'rds: 70","CSeq: 1 ACK","rule:twilio-openai/content-type-of-sdp","answered","ACK sip:trunkline@ SIP/2.0",'
    rb'"CSeq: ACK","BYE sip:trunkline@ SIP/2.0","CSeq: BYE","Reason: Q.850;cause=16;text=\"Normal call clearing'
    rb'\"","BYE sip:OAI@ SIP/2.0","Max-Forwards: 69","CSeq: 2 BYE","caller","Q.850;cause=16;text=\"Normal call '
    rb'clearing\""'
)
