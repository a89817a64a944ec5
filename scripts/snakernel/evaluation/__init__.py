"""Judging a kernel: a candidate process runs it, a judge process that never imports it decides."""
