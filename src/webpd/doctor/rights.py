"""Rights on folders: whose they are, and what gives them to this user."""

import os
import pwd
import shlex

from webpd.watch.mount import Mount


def owner_of(path: str) -> str:
    """Return the name of the user to whom the file or folder belongs, "another user" where that is not told."""
    try:
        return name_of(os.stat(path).st_uid)
    except OSError:
        return "another user"


def name_of(user: int) -> str:
    """Return the user's name, or the number of one who has none here."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def doctor_as(user: int, group: int, folder: str) -> str:
    """Return the command by which root has ``webpd doctor`` look as that user, with this state folder."""
    try:
        pwd.getpwuid(user)
        groups = "--init-groups"
    except KeyError:
        groups = "--clear-groups"  # setpriv has no groups for who has no name
    command = f"setpriv --reuid={user} --regid={group} {groups} webpd doctor --state-dir {shlex.quote(folder)}"
    return f"`{command}`" if os.geteuid() == 0 else f"as root: `{command}`"


def grant(owner: str, root: str, mount: Mount) -> str:
    """Return what lets this user work in a folder of that owner, and in all others below the root."""
    alone = f"run webpd as its owner ({owner})"
    if mount.kind.startswith("fuse"):
        return alone  # these know no access control lists
    user = name_of(os.geteuid())
    return (
        f"{alone}, or give {user} the whole tree: `setfacl -R -m u:{user}:rwX,d:u:{user}:rwX {shlex.quote(root)}` "
        "(`apt install acl` has it)"
    )
