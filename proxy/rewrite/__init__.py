"""Declarative rules that rewrite a message and record every change."""
