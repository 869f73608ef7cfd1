#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Features of /bin/sh that scripts use: pipelines, background jobs, substitution, redirection, traps, exit statuses.
# Some constructs look odd: they are the test.
# shellcheck disable=SC2005,SC2016,SC2030,SC2031,SC2046,SC2086,SC2116,SC2181,SC2194
count=0
failures=0

# check NAME EXPECTED FOUND
check() {
	count=$((count + 1))
	if [ "$2" = "$3" ]; then
		echo "ok $count - $1"
	else
		failures=$((failures + 1))
		echo "not ok $count - $1"
		echo "# expected '$2', found '$3'"
	fi
}

work=/tmp/nabla-shell-$$
mkdir "$work" && cd "$work" || exit 2

check "command substitution" "hello" "$(echo hello)"
check "nested substitution" "a b c" "$(echo a $(echo b $(echo c)))"
check "a pipeline" "3" "$(printf 'x\ny\nz\n' | wc -l | tr -d ' ')"
check "a long pipeline" "4" "$(printf '4\n3\n2\n1\n' | sort | tac | sed 's/$/!/' | tr -d '!' | head -n 1 | cat | cat)"
check "a big pipeline" "200000" "$(seq 200000 | cat | tail -n 1)"
check "a pipeline whose reader leaves early" "1" "$(seq 1000000 | head -n 1)"
check "a group in a pipeline" "2" "$({ echo a; echo b; } | wc -l | tr -d ' ')"
check "a loop in a pipeline" "6" "$(seq 3 | while read -r n; do echo $((n * 2)); done | tail -n 1)"

(exit 3)
check "a subshell's status" 3 $?
x=outer
(x=inner; true)
check "a subshell keeps its variables" outer "$x"
(cd / && pwd >"$work/where")
check "and its directory" "/ $work" "$(cat where) $(pwd)"
false | true
check "a pipeline's status is the last one's" 0 $?
true | false
check "also when it fails" 1 $?
! true
check "negation" 1 $?
no-such-command-at-all 2>/dev/null
check "a missing command: 127" 127 $?
: >plain
./plain 2>/dev/null
check "a file without x bit: 126" 126 $?
sh -c 'exit 200'
check "status 200" 200 $?
sh -c 'kill -TERM $$'
check "killed by SIGTERM: 143" 143 $?
sh -c 'kill -KILL $$'
check "killed by SIGKILL: 137" 137 $?

sleep 0.1 &
wait $!
check "wait for a background job" 0 $?
sh -c 'exit 9' &
wait $!
check "its status" 9 $?
sleep 60 &
kill $!
wait $! 2>/dev/null
check "a killed background job: 143" 143 $?
for i in 1 2 3 4 5; do
	{ sleep 0.05; echo "$i" >"job$i"; } &
done
wait
check "five jobs at once" "1 2 3 4 5" "$(echo $(cat job1 job2 job3 job4 job5))"
echo data | { cat; } >piped &
wait
check "a pipeline in the background" data "$(cat piped)"

cat >document <<END
value $((6 * 7)) $x
END
check "a here-document" "value 42 outer" "$(cat document)"
echo one >file
echo two >>file
check "append" "one two" "$(echo $(cat file))"
ls /no/such/place >out 2>err
check "standard error goes elsewhere" "0 yes" "$(wc -c <out | tr -d ' ') $(test -s err && echo yes)"
{ echo to-3 >&3; } 3>third
check "descriptor 3" to-3 "$(cat third)"
read -r first <file
check "read from a file" one "$first"
exec 4<file
read -r a <&4
read -r b <&4
exec 4<&-
check "a descriptor kept open" "one two" "$a $b"

check "a trap at exit" trapped "$(sh -c 'trap "echo trapped" EXIT; exit 0')"
check "a trap for a signal" got-usr1 "$(sh -c 'trap "echo got-usr1" USR1; kill -USR1 $$; sleep 0.01')"
check "set -e" "before" "$(sh -c 'set -e; echo before; false; echo after')"
function_with_status() {
	return $1
}
function_with_status 33
check "a function's status" 33 $?
case abcdef in abc*f) result=matched ;; *) result=no ;; esac
check "case patterns" matched "$result"
i=0
while [ $i -lt 100 ]; do i=$((i + 1)); [ $i = 50 ] && break; done
check "while and break" 50 $i
check "expansions" "file.txt /a/b 8 dflt" "$(p=/a/b/file.txt; echo "${p##*/} ${p%/*} $((2 + 2 * 3)) ${unset_one:-dflt}")"
check "globbing" "job1 job2 job3 job4 job5" "$(echo job?)"
set -- a "b c" d
check "positional parameters" "3 b c" "$# $2"
check "eval" evaluated "$(eval 'echo evaluated')"
check "environment of one command" "blue -" "$(COLOR=blue sh -c 'echo $COLOR') ${COLOR:--}"
check "xargs" "1-2-3" "$(printf '1 2 3' | xargs sh -c 'echo "$0-$1-$2"')"
check "find -exec" "5" "$(find . -name 'job*' -exec cat {} \; | wc -l | tr -d ' ')"
check "awk" "15" "$(seq 5 | awk '{ s += $1 } END { print s }')"
check "tar and gzip" "same" "$(tar -czf t.tgz job1 job2 && mkdir un && tar -xzf t.tgz -C un && cmp job1 un/job1 && echo same)"
if command -v timeout >/dev/null; then
	timeout 1 sleep 30
	check "timeout ends a command" "yes" "$([ $? != 0 ] && echo yes)"
fi

n=0
for i in $(seq 100); do
	n=$((n + $(echo 1)))
done
check "a hundred substitutions" 100 $n

cd / && rm -r "$work"
echo "1..$count"
[ $failures = 0 ]
