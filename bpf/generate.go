package bpf

//go:generate go tool -modfile=../hack/tools.mod bpf2go -cc clang-14 -target bpfel -type hook -type counter_key -type counter Drop drop.bpf.c -- -O2 -Wall -Werror -Iheaders
