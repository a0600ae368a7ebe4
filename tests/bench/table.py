"""What came out, as text and as Markdown."""

import statistics

# Key, heading, digits.
COLUMNS = [
    ("tcp1_forth_gbit", "TCP 1, Gbit/s", 2),
    ("tcp1_back_gbit", "reverse", 2),
    ("tcp4_forth_gbit", "TCP 4", 2),
    ("tcp4_back_gbit", "reverse", 2),
    ("tcp1_forth_daemons_s_per_gb", "daemons, CPU s/GB", 2),
    ("tcp1_forth_machine_s_per_gb", "machine, CPU s/GB", 2),
    ("ping_ms", "ping, ms", 2),
    ("ping_loaded_p99_ms", "p99 loaded, ms", 1),
    ("udp64_kpps", "UDP 64 B, kpps", 0),
    ("memory_mib", "peak MiB", 0),
    ("first_ping_ms", "first ping, ms", 0),
]

# What is to be reached: words, key, ours, whose figure it is divided by, and what must come out.
WEBMESH, AES, CHACHA, REFERENCE = "webmesh", "floor, aes", "floor, chacha", "wireguard-go"
TARGETS = [
    ("TCP, 1 stream", "tcp1_forth_gbit", WEBMESH, REFERENCE, "≥ 4.0"),
    ("TCP, 1 stream", "tcp1_forth_gbit", WEBMESH, AES, "≥ 0.9"),
    ("TCP, 1 stream, reverse", "tcp1_back_gbit", WEBMESH, REFERENCE, "≥ 4.0"),
    ("TCP, 1 stream, reverse", "tcp1_back_gbit", WEBMESH, AES, "≥ 0.9"),
    ("TCP, 4 streams", "tcp4_forth_gbit", WEBMESH, REFERENCE, "≥ 4.5"),
    ("TCP, 4 streams, reverse", "tcp4_back_gbit", WEBMESH, REFERENCE, "≥ 4.5"),
    ("TCP, 1 stream, ChaCha20-Poly1305", "tcp1_forth_gbit", "webmesh, chacha", REFERENCE, "≥ 2.3"),
    ("TCP, 1 stream, ChaCha20-Poly1305", "tcp1_forth_gbit", "webmesh, chacha", CHACHA, ""),
    ("TCP, 1 stream, by relay", "tcp1_forth_gbit", "webmesh, relayed", REFERENCE, "≥ 0.8"),
    ("CPU of all daemons per GB", "tcp1_forth_daemons_s_per_gb", WEBMESH, REFERENCE, "≤ 0.22"),
    ("UDP, 64 bytes, < 1 % lost", "udp64_kpps", WEBMESH, REFERENCE, "≥ 2.0"),
    ("UDP, 64 bytes, < 1 % lost", "udp64_kpps", WEBMESH, "nebula", "> 1.0"),
    ("ping, idle", "ping_ms", WEBMESH, REFERENCE, "≤ 0.6"),
    ("ping, p99 under one stream", "ping_loaded_p99_ms", WEBMESH, REFERENCE, "≤ 0.3"),
]
MOST_MEMORY_MIB = 16


def render(result):
    """All that is to be said of a run, in Markdown."""
    lines = [_heading(result), "", *_figures(result), "", *_ratios(result), ""]
    lines += [f"{name} is left out: {why}." for name, why in result["refused"].items()]
    return "\n".join(lines)


def _heading(result):
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    rounds = f"{result['rounds']} rounds of {result['seconds']} s, {result['discarded']} visits thrown away"
    return (
        f"{result['date']}, {result['cores']} × {result['processor']}, Linux {result['kernel']}; both ends and iperf3 on "
        f"it; cubic; medians of {rounds} (least–most). {versions}."
    )


def _figures(result):
    yield "| | " + " | ".join(heading for _, heading, _ in COLUMNS) + " |"
    yield "|---" * (len(COLUMNS) + 1) + "|"
    for name, figures in result["figures"].items():
        offloads = result["offloads"].get(name)
        label = name if offloads is None or name == "raw link" else f"{name} ({' '.join(offloads) or 'no offloads'})"
        yield f"| {label} | " + " | ".join(_cell(figures.get(key), digits) for key, _, digits in COLUMNS) + " |"


def _cell(values, digits):
    if not values:
        return "–"
    middle, least, most = [f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values))]
    return middle if least == most else f"{middle} ({least}–{most})"


def _ratios(result):
    yield "| | | is | to reach |"
    yield "|---|---|---|---|"
    for words, key, ours, other, target in TARGETS:
        ratio = _ratio(result, key, ours, other)
        if ratio is not None:
            yield f"| {words} | {ours} ÷ {other} | {ratio:.2f} | {target} |"
    memory = result["figures"].get(WEBMESH, {}).get("memory_mib")
    if memory:
        yield f"| peak memory of a daemon | {WEBMESH} | {_cell(memory, 0)} MiB | ≤ {MOST_MEMORY_MIB} MiB |"


def _ratio(result, key, ours, other):
    figures = [result["figures"].get(name, {}).get(key) for name in (ours, other)]
    if not all(figures):
        return None
    above, below = [statistics.median(values) for values in figures]
    return above / below if below else None
