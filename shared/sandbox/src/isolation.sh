# The first process of the new namespaces. It shows the solution the image and nothing else, and stays as its parent:
# when it ends, the kernel kills whatever is left in the namespace.
#   $1 image  $2 mount  $3 pivot_root, then the command to run in the image
set -eu
image=$1 mount=$2 pivot_root=$3
shift 3
# If the machine runs out of memory, this goes first.
echo 1000 > /proc/self/oom_score_adj || true
exec 3<> /dev/null
"$mount" -o bind,ro,nosuid,nodev "$image" "$image"
# The same files once more: a process whose root is not the namespace's root may not make user namespaces.
"$mount" --bind "$image" "$image/jail"
# umount asks it what is mounted where.
"$mount" --rbind /proc "$image/proc"
cd "$image"
"$pivot_root" . old
cd /
unset PWD OLDPWD
export LD_LIBRARY_PATH=/libs
/tools/umount -l /old
/tools/umount -l /proc
/tools/chroot /jail "$@"
exit $?
