#!/bin/sh
# Split a folder into tar files that each fit one transfer to another machine.
#   pack_parts.sh FOLDER OUT [MIB]     writes OUT/p0/pack.tar, OUT/p1/pack.tar ... of at most MIB (45) MiB each
# Each lies in a folder of its own, and they unpack in any order: tar xf p0/pack.tar -C DESTINATION
# What links lead to is packed in their place.
set -eu
folder=$(cd "$1" && pwd)
mkdir -p "$2"
out=$(cd "$2" && pwd)
limit=$(( ${3:-45} * 1024 * 1024 ))

lists=$(mktemp -d)
trap 'rm -r "$lists"' EXIT
rm -f "$out"/p[0-9]*/pack.tar # of before: nothing else in OUT is ours
rmdir "$out"/p[0-9]* 2> /dev/null || true
# A file takes 512 bytes of header and is rounded up to 512; 20 kB are left for the end of the archive.
(cd "$folder" && find -L . -type f -printf '%s %P\n') | sort -k2 |
    awk -v limit="$limit" -v out="$lists" '
        { size = 512 + int(($1 + 511) / 512) * 512 }
        size + 20480 > limit { print $2 " alone is larger than a part" > "/dev/stderr"; exit 1 }
        filled + size + 20480 > limit { part++; filled = 0 }
        { filled += size; sub(/^[0-9]+ /, ""); print > (out "/list." part + 0) }'

for list in "$lists"/list.*; do
    part=$out/p${list##*.}
    mkdir -p "$part"
    tar chf "$part/pack.tar" -C "$folder" --verbatim-files-from -T "$list"
    echo "$part/pack.tar $(stat -c %s "$part/pack.tar") bytes"
done
