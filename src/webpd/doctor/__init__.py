"""What ``webpd doctor`` looks at, a module for each theme; every fault and warning comes with its cure."""
