# The container's process 1: keeps the sandbox until its own time to live is over.
#
# Usage: sh -c "$TEXT" leasehold DIR. It runs as a user of its own, so that no command can signal it,
# and reads "<boot id> <uptime> <renewal>" (1/100 s) from DIR/deadline, which nobody inside can
# write. When the time is over it leaves, and the kernel ends everything in its pid namespace:
# nobody outside is needed for that. It heeds TERM at once, and waiting reaps what is orphaned.
#
# The supervisors on the host keep the same deadline and end their commands with a grace; process 1
# comes three seconds later, for when they are gone. Who slept through its own alarm, as a machine
# that was suspended does, may have slept through a renewal too, and waits for one more.

set -f
trap 'exit 0' TERM INT
trap : HUP USR1 USR2
pardon=0 wake=0
now() { read -r now _ </proc/uptime; frac=1${now#*.}; now=$((${now%.*} * 100 + frac - 100)); }
while :; do
  now
  # It is replaced by rename, so a missing file is a sandbox that was removed.
  read -r _ at renewal 2>/dev/null <"$1/deadline" || exit 75
  at=$((at + 300))
  [ "$wake" = 0 ] || [ $((now - wake)) -lt 500 ] || pardon=$((now + renewal))
  [ "$at" -gt "$pardon" ] || at=$pardon
  left=$(((at - now + 99) / 100))
  [ "$left" -gt 0 ] || exit 75
  # Seldom: each look needs a fork, and a command may have used them up.
  [ "$left" -lt 300 ] || left=300
  wake=$((now + left * 100))
  sleep "$left" &
  wait $!
done
