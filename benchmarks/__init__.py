"""skdnn beside what its users would pick instead: times, memory and accuracy of all contestants in turn.

``python -m benchmarks`` measures everything and writes ``benchmarks/RESULTS.md``; see `benchmarks.__main__`.
"""
