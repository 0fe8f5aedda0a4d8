package bpf

//go:generate go tool -modfile=../hack/tools.mod bpf2go -cc clang-14 -target bpfel -type hook -type counter_key -type counter -type direction -type flow -type flow_count -type flow_total -type probe Drop drop.bpf.c -- -O2 -Wall -Werror -Iheaders
