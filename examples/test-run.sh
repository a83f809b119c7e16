#!/usr/bin/env bash
# Test Run: uploads every regular file below a folder, fetches each back, compares byte by byte.
#
#   examples/test-run.sh FOLDER [URL] [JOBS] [--upload-only | --check-only]
#
# FOLDER         what to upload; a file's key is its path below FOLDER
# URL            a node or proxy (default http://127.0.0.1:8080)
# JOBS           clients at once, 1 to 99 (default 8)
# --upload-only  upload, do not fetch
# --check-only   fetch and compare what an earlier run uploaded
#
# Exit: 0 when every file came back identical, 1 when any did not or failed, 2 for wrong use.
# Needs: bash 4.4, curl 7.75, find, cmp, awk, and as much room in TMPDIR as FOLDER takes.
# Any file name works, newlines included. Each client is one curl process with a list of its
# files, so thousands of small files cost no process each.
set -uo pipefail

# Every byte is a character: names need not be valid UTF-8.
export LC_ALL=C

usage() {
    sed -n '2,12s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

refuse() {
    echo "test-run: $1" >&2
    exit 2
}

upload=1 check=1 words=()
for word in "$@"; do
    case $word in
        --upload-only) check=0 ;;
        --check-only) upload=0 ;;
        -*) usage ;;
        *) words+=("$word") ;;
    esac
done
((${#words[@]} >= 1 && ${#words[@]} <= 3 && upload + check > 0)) || usage
url=${words[1]:-http://127.0.0.1:8080}
url=${url%/}
jobs=${words[2]:-8}
[[ $jobs =~ ^[1-9][0-9]?$ ]] || refuse 'JOBS is 1 to 99'
[[ $url =~ ^https?://[^[:space:]\"\\]+$ ]] || refuse "$url is not a URL"
[[ -d ${words[0]} ]] || refuse "${words[0]} is not a folder"
command -v curl >/dev/null || refuse 'curl is not installed'
cd -- "${words[0]}" || refuse "cannot enter ${words[0]}"

work=$(mktemp -d "${TMPDIR:-/tmp}/tako-test-run.XXXXXX") || refuse 'no temporary folder'
trap 'rm -rf -- "$work"' EXIT
trap 'kill 0; exit 130' INT TERM
mkdir "$work/fetched" || exit 2

mapfile -d '' -t names < <(find . -type f -print0)
names=("${names[@]#./}")
count=${#names[@]}
((count > 0)) || refuse "no regular files below ${words[0]}"
((jobs <= count)) || jobs=$count

# Sets `encoded`: every byte percent-encoded but the unreserved ones and `/`.
encode() {
    local rest=$1 plain byte
    encoded=
    while [[ -n $rest ]]; do
        plain=${rest%%[!A-Za-z0-9._~/-]*}
        encoded+=$plain
        rest=${rest:${#plain}}
        [[ -n $rest ]] || break
        # "'x" is the code of x; bytes above 127 are negative in some versions.
        printf -v byte '%d' "'${rest:0:1}"
        printf -v byte '%%%02X' $((byte & 255))
        encoded+=$byte
        rest=${rest:1}
    done
}

# Sets `quoted`: $1 as a quoted parameter of a curl configuration file.
quote() {
    quoted=${1//\\/\\\\}
    quoted=${quoted//\"/\\\"}
    quoted=${quoted//$'\n'/\\n}
    quoted=${quoted//$'\r'/\\r}
    quoted=\"$quoted\"
}

# Writes "$work/$1.<client>.curl" for all clients; the `pending` files are dealt out in turn.
write_lists() {
    local phase=$1 i place files=() next=
    for ((i = 0; i < jobs; i++)); do
        exec {files[i]}>"$work/$phase.$i.curl" || exit 2
    done
    for ((place = 0; place < ${#pending[@]}; place++)); do
        i=${pending[place]}
        encode "${names[i]}"
        ((place < jobs)) || next=$'next\n'
        # `next` forgets these, so every file brings its own. A transfer that stands still for a
        # minute has failed.
        printf '%s' "$next" 'silent
show-error
fail
globoff
path-as-is
connect-timeout = 10
speed-limit = 1
speed-time = 60
' >&"${files[place % jobs]}"
        printf 'url = "%s/values/%s"\nwrite-out = "%d %%{exitcode} %%{http_code} %%{%s}\\n"\n' \
            "$url" "$encoded" "$i" "size_$phase" >&"${files[place % jobs]}"
        if [[ $phase == upload ]]; then
            quote "$PWD/${names[i]}"
            # `upload-file` streams from disk; `data-binary` would hold the file in memory.
            printf 'upload-file = %s\n%s' "$quoted" 'request = POST
header = "Expect:"
header = "Content-Type: application/octet-stream"
output = "/dev/null"
' >&"${files[place % jobs]}"
        else
            printf 'output = "%s/fetched/%d"\n' "$work" "$i" >&"${files[place % jobs]}"
        fi
    done
    for ((i = 0; i < jobs; i++)); do
        exec {files[i]}>&-
    done
}

# Runs one curl per client over the `pending` files and waits; adds to `good` and `total`, leaves
# in `pending` what failed.
attempt() {
    local phase=$1 i index exit_code status bytes
    local -a done_well=() left=()
    write_lists "$phase"
    for ((i = 0; i < jobs; i++)); do
        [[ -s $work/$phase.$i.curl ]] || continue
        curl -q --config "$work/$phase.$i.curl" >"$work/$phase.$i.out" 2>"$work/$phase.$i.err" &
    done
    wait
    # A file without a line here failed too: its client ended early.
    while read -r index exit_code status bytes; do
        if [[ $exit_code == 0 && $status == 2?? ]]; then
            done_well[index]=1
            ((total += bytes))
        fi
    done < <(cat "$work/$phase".*.out)
    for i in "${pending[@]}"; do
        if [[ -n ${done_well[i]:-} ]]; then ((good += 1)); else left+=("$i"); fi
    done
    pending=(${left[@]+"${left[@]}"})
}

# One phase: all files, then at most twice more those that failed. Sets `good`, `failed` (counts)
# and `failures` (indices). Trying again in rounds keeps a dead server from costing time per file.
transfer() {
    local phase=$1 said=$2 start end try total=0
    local -a pending=("${!names[@]}")
    good=0
    start=${EPOCHREALTIME:-$SECONDS}
    for try in 0 1 2; do
        ((${#pending[@]} > 0)) || break
        ((try == 0)) || sleep "$try"
        rm -f "$work/$phase".*
        attempt "$phase"
    done
    end=${EPOCHREALTIME:-$SECONDS}
    failures=(${pending[@]+"${pending[@]}"})
    failed=${#failures[@]}
    report "$phase: $good of $count files $said, $failed failed" "$start" "$end" "$total"
    if ((failed > 0)); then
        name_some 'failed' "${failures[@]}"
        cat "$work/$phase".*.err | sort | uniq -c | sort -rn | head -n 5 >&2
    fi
}

# Prints a phase's counts with its time and speed.
report() {
    awk -v line="$1" -v start="$2" -v end="$3" -v bytes="$4" 'BEGIN {
        seconds = end - start; mb = bytes / 1e6; speed = 0
        if (0 < seconds) speed = mb / seconds
        printf("%s, %.3f s, %.1f MB, %.1f MB/s\n", line, seconds, mb, speed)
    }'
}

# Names the first ten of some files: a word, then their indices.
name_some() {
    local word=$1 i
    shift
    for i in "${@:1:10}"; do
        printf '  %s: %q\n' "$word" "${names[i]}" >&2
    done
    (($# <= 10)) || echo "  and $(($# - 10)) more" >&2
}

# Compares the files of client $1; prints the index of each that differs.
compare_share() {
    local i
    for ((i = $1; i < count; i += jobs)); do
        [[ -z ${skip[i]:-} ]] || continue
        # Some versions of curl make no file of an empty answer.
        [[ -e $work/fetched/$i ]] || : >"$work/fetched/$i"
        cmp -s -- "$PWD/${names[i]}" "$work/fetched/$i" || echo "$i"
    done
}

# Compares what was fetched; sets `differing` (count). Prints the phase's line.
compare() {
    local -a skip=() differ=()
    local i start end
    for i in ${failures[@]+"${failures[@]}"}; do skip[i]=1; done
    start=${EPOCHREALTIME:-$SECONDS}
    for ((i = 0; i < jobs; i++)); do
        compare_share "$i" >"$work/compare.$i.out" &
    done
    wait
    end=${EPOCHREALTIME:-$SECONDS}
    mapfile -t differ < <(cat "$work"/compare.*.out)
    differing=${#differ[@]}
    awk -v same=$((good - differing)) -v differ="$differing" -v start="$start" -v end="$end" \
        'BEGIN { printf "compare: %d identical, %d differing, %.3f s\n", same, differ, end - start }'
    ((differing == 0)) || name_some 'differs' "${differ[@]}"
}

wrong=0
if ((upload)); then
    transfer upload uploaded
    ((wrong += failed))
fi
if ((check)); then
    transfer download fetched
    ((wrong += failed))
    compare
    ((wrong += differing))
fi
if ((wrong > 0)); then
    echo "test-run: FAILED ($wrong)"
    exit 1
fi
echo 'test-run: passed'
