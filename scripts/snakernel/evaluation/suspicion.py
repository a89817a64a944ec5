"""What a scan of a kernel's source finds odd. It reports, and decides nothing: what decides are fresh values, outputs
of timed calls, and processes that a kernel cannot reach."""

from __future__ import annotations


def suspicions(code: str) -> list[str]:
    """Names and evidence of KernelGuard's patterns that a kernel's source matches, one a line."""
    import kernelguard

    try:
        matched = kernelguard.analyze_code(code)["matched_patterns"]
    except Exception as error:  # a scanner of hostile text: that it fails is told, and no more
        return [f"the scan failed: {type(error).__name__}"]
    return sorted({_line(one) for one in matched})


def _line(pattern: dict) -> str:
    evidence = pattern.get("evidence") or []
    shown = "; ".join(str(one) for one in evidence) if isinstance(evidence, (list, tuple)) else str(evidence)
    return f"{pattern.get('pattern')}: {shown}"[:300].rstrip(": ")
