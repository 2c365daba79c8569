"""The benchmarks behind `hypergpud bench`."""
