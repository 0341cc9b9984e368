"""For tests of Tidegate and of what is built on it: generators, a manual clock, contract suites."""
