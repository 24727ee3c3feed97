"""Looking for destroyed keys in the memory of the process that had them.

Source: proc(5): /proc/PID/maps and /proc/PID/mem, readable for an ancestor of the process, or for root.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["count_in_memory"]

_CHUNK = 1 << 20


def count_in_memory(pid: int, needles: dict[str, bytes]) -> dict[str, int] | None:
    """Count how often each secret occurs in the readable memory of a process.

    Args:
        pid: the process.
        needles: names and bytes to look for.

    Returns: occurrences by name, or None where the system does not let us look.
    """
    counts = dict.fromkeys(needles, 0)
    longest = max(len(needle) for needle in needles.values())
    try:
        maps = Path(f"/proc/{pid}/maps").read_text()
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
            for line in maps.splitlines():
                span, rights = line.split()[:2]
                if not rights.startswith("r") or line.endswith(("[vvar]", "[vsyscall]")):
                    continue
                start, end = (int(number, 16) for number in span.split("-"))
                kept = b""
                for at in range(start, end, _CHUNK):
                    try:
                        memory.seek(at)
                        chunk = kept + memory.read(min(_CHUNK, end - at))
                    except OSError:  # a guard page, or device memory
                        kept = b""
                        continue
                    for name, needle in needles.items():
                        counts[name] += chunk.count(needle) - kept.count(needle)
                    kept = chunk[-(longest - 1) :]
    except (PermissionError, ProcessLookupError, FileNotFoundError):
        return None
    return counts
