"""The profile file, shared with the public SDK, and the choice of a profile and a cluster."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from ape_silverback.cluster import settings
from ape_silverback.cluster.choice import Choice, choose_cluster, choose_profile
from ape_silverback.cluster.client import ClusterClient, connect, connect_platform
from ape_silverback.cluster.settings import (
    ClusterProfile,
    PlatformProfile,
    ProfileSettings,
    profile_path,
    read_profiles,
    remove_profile,
    save_profile,
)
from ape_silverback.exceptions import FileError, NoClusterError, ProfileError, Unauthorized

WRITTEN_BY_HAND = """\
# My clusters
default-profile = "mine"

[auth.default]
host = "https://account.apeworx.io"   # do not change
client-id = "abc"

[profile.default]
host = "https://silverback.apeworx.io"
auth = "default"
default-workspace = "space"

[profile.default.default-cluster]
space = "cluster"

[profile.mine]
host = "https://silverback.example"
api-key = "secret"
"""


@pytest.fixture(autouse=True)
def file(home: Path) -> Path:
    return profile_path()


def write(file: Path, text: str) -> None:
    file.parent.mkdir(mode=0o700, exist_ok=True)
    file.write_text(text)


def by_public_sdk(home: Path, code: str) -> Any:
    """Run code in a process of its own that has the public SDK's settings: it fixes its paths when it is imported."""
    script = f"import json; from silverback.cluster.settings import ProfileSettings\n{code}"
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "HOME": str(home), "APE_DATA_FOLDER": str(home / ".ape")},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(result.stdout)


SHOW = "print(json.dumps(ProfileSettings.from_config_file().model_dump(mode='json', by_alias=True)))"


# With the public SDK


def test_the_public_sdk_reads_what_we_write(home: Path) -> None:
    ProfileSettings.from_config_file()
    save_profile("local", ClusterProfile(host="http://127.0.0.1:1", api_key="k"))
    save_profile("far", ClusterProfile(host="http://far.example", api_key="k", allow_insecure=True))
    seen = by_public_sdk(home, SHOW)
    assert seen["profile"]["local"] == {"host": "http://127.0.0.1:1", "api-key": "k"}
    assert seen["profile"]["far"]["host"] == "http://far.example"
    assert seen["profile"]["default"]["auth"] == "default"
    assert seen["auth"]["default"]["host"] == "https://account.apeworx.io"


def test_we_read_what_the_public_sdk_writes_on_first_use(home: Path, file: Path) -> None:
    theirs = by_public_sdk(home, SHOW)
    assert file.exists()
    ours = read_profiles().model_dump(mode="json", by_alias=True)
    assert ours["auth"] == theirs["auth"]
    assert ours["default-profile"] == theirs["default-profile"]
    assert ours["profile"]["default"]["host"] == theirs["profile"]["default"]["host"]


def test_on_first_use_we_write_what_the_public_sdk_writes(home: Path, file: Path) -> None:
    by_public_sdk(home, SHOW)
    theirs = read_profiles()
    file.unlink()
    assert ProfileSettings.from_config_file() == theirs


# Writing


def test_comments_and_order_and_other_keys_stay(file: Path) -> None:
    write(file, WRITTEN_BY_HAND)
    save_profile("local", ClusterProfile(host="http://127.0.0.1:1", api_key="k"))
    assert file.read_text().startswith(WRITTEN_BY_HAND)
    remove_profile("local")
    assert file.read_text().strip() == WRITTEN_BY_HAND.strip()


def test_a_profile_that_is_saved_again_keeps_what_else_it_says(file: Path) -> None:
    write(file, "[profile.local]\n# mine\nhost = 'old'\napi-key = 'old'\ncolour = 'green'\n")
    save_profile("local", ClusterProfile(host="new", api_key="new"))
    assert file.read_text().count("[profile.local]") == 1
    assert "# mine" in file.read_text()
    assert "colour = 'green'" in file.read_text()
    assert read_profiles().profile["local"].host == "new"


@pytest.mark.parametrize("mode", [None, 0o644, 0o600])
def test_the_file_is_for_its_owner_only(file: Path, mode: int | None) -> None:
    if mode is not None:
        write(file, WRITTEN_BY_HAND)
        file.chmod(mode)
    old = os.umask(0)
    try:
        save_profile("local", ClusterProfile(host="h", api_key="k"))
    finally:
        os.umask(old)
    assert file.stat().st_mode & 0o777 == 0o600
    for path in file.parent.iterdir():
        assert not path.stat().st_mode & 0o077, path
    assert not file.parent.stat().st_mode & 0o077


def test_reading_writes_nothing(file: Path) -> None:
    assert read_profiles().profile == {}
    with pytest.raises(NoClusterError):
        choose_profile()
    assert not file.parent.exists()


def test_a_write_that_fails_leaves_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(file, WRITTEN_BY_HAND)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match="can't be written: No space left"):
        save_profile("local", ClusterProfile(host="h", api_key="k"))
    assert file.read_text() == WRITTEN_BY_HAND
    assert sorted(path.name for path in file.parent.iterdir()) == ["profile.lock", "profile.toml"]


def test_writers_at_the_same_time_lose_nothing(home: Path) -> None:
    script = (
        "import sys; from ape_silverback.cluster.settings import *\n"
        "for n in range(10): save_profile(f'{sys.argv[1]}{n}', ClusterProfile(host='h', api_key='k'))"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", script, name], env={**os.environ, "HOME": str(home)}) for name in "abc"
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert len(read_profiles().profile) == 31


def test_a_writer_that_never_ends_is_told_of(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    monkeypatch.setattr(settings, "LOCK_TIMEOUT", 0.1)
    file.parent.mkdir()
    with file.with_suffix(".lock").open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(FileError, match=r"has been holding .*profile\.lock"):
            save_profile("local", ClusterProfile(host="h", api_key="k"))


# Broken files


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[profile.a\n", r":1: invalid TOML"),
        ("\n\nx = \n", r":3: invalid TOML"),
        ("[profile.a]\nhost = 'h'\n", r":1: profile\.a: needs `api-key`, or `auth`"),
        ("[auth.default]\n\n[profile.a]\nhost = 5\napi-key = 'k'\n", r":4: profile\.a\.host: "),
        ("[profile.a]\nhost = 'h'\nauth = 'gone'\n", r":3: profile\.a\.auth names 'gone', but \[auth\] has: none"),
        ("profile = 5\n", r":1: profile: "),
        ("[auth]\ndefault = 'x'\n", r":2: auth\.default: "),
        ("default-profile = 5\n", r":1: default-profile: "),
    ],
)
def test_a_broken_file_is_told_with_line_and_key(file: Path, text: str, error: str) -> None:
    write(file, text)
    with pytest.raises(ProfileError, match=re.escape(str(file)) + error):
        read_profiles()
    with pytest.raises((ProfileError, FileError)):
        choose_profile("a")


def test_a_broken_file_isnt_written_over(file: Path) -> None:
    write(file, "[profile.a\n")
    with pytest.raises(ProfileError):
        save_profile("local", ClusterProfile(host="h", api_key="k"))
    assert file.read_text() == "[profile.a\n"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("profile = {a = {host = 'h', api-key = 'k'}}\n", "a profile can't be added to a file written like this"),
        ("profile.a.host = 'h'\nprofile.a.api-key = 'k'\n", "a profile can't be added to a file written like this"),
        ("[[profile]]\nhost = 'h'\n", ":1: profile: "),
        ("[profile.a]\nhost = 5\napi-key = 'k'\n", ":2: profile.a.host: "),
    ],
)
def test_a_file_that_cant_be_added_to_stays_as_it_is(file: Path, text: str, error: str) -> None:
    write(file, text)
    with pytest.raises(ProfileError, match=re.escape(str(file)) + ".*" + re.escape(error)):
        save_profile("local", ClusterProfile(host="h", api_key="k"))
    assert file.read_text() == text


def test_a_file_doesnt_grow_with_the_profile_that_comes_and_goes(file: Path) -> None:
    sizes = set()
    for _ in range(5):
        save_profile("local", ClusterProfile(host="h", api_key="k"))
        remove_profile("local")
        sizes.add(file.stat().st_size)
    assert len(sizes) == 1


def test_a_broken_file_shows_no_key(file: Path) -> None:
    write(file, "[profile.a]\nhost = 5\napi-key = 'very-secret'\n")
    with pytest.raises(ProfileError) as caught:
        read_profiles()
    assert "very-secret" not in str(caught.value)
    assert "very-secret" not in repr(caught.value.__context__ or "")


# Keys


@pytest.mark.parametrize("key", ["lab-key\n", "\tlab-key", " lab-key\r\n"])
def test_white_space_around_a_key_is_dropped(file: Path, key: str) -> None:
    environ = {"SILVERBACK_CLUSTER_URI": " https://ci.example\n", "SILVERBACK_CLUSTER_API_KEY": key}
    assert choose_profile(environ=environ).profile == ClusterProfile(host="https://ci.example", api_key="lab-key")
    write(file, f"[profile.a]\nhost = 'https://h'\napi-key = {json.dumps(key)}\n")
    assert read_profiles().profile["a"] == ClusterProfile(host="https://h", api_key="lab-key")
    with ClusterClient(base_url="http://127.0.0.1:9", headers={"X-API-Key": key}) as client:
        assert client.headers["X-API-Key"] == "lab-key"


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("very\u200bsecret", r"character 5 of 11 is U\+200B \(ZERO WIDTH SPACE\)"),
        ("very\nsecret", r"character 5 of 11 is U\+000A \(a control character\)"),
        ("very\udce9secret", r"character 5 of 11 is the byte 0xE9, which isn't UTF-8"),
        (" \n", "is empty"),
    ],
)
def test_a_key_that_cant_be_sent_is_refused_without_showing_it(file: Path, key: str, reason: str) -> None:
    with pytest.raises(ProfileError, match=f"SILVERBACK_CLUSTER_API_KEY.* {reason}") as caught:
        choose_profile(environ={"SILVERBACK_CLUSTER_URI": "https://h", "SILVERBACK_CLUSTER_API_KEY": key})
    errors = [caught.value]
    if "\udce9" not in key:  # which no file can hold
        write(file, f"[profile.a]\nhost = 'https://h'\napi-key = {json.dumps(key)}\n")
        with pytest.raises(ProfileError, match=rf":3: profile\.a\.api-key: .*{reason}") as caught:
            read_profiles()
        errors.append(caught.value)
    with pytest.raises(ProfileError, match=f"header X-API-Key .*{reason}") as caught:
        ClusterClient(base_url="http://127.0.0.1:9", headers={"X-API-Key": key})
    for error in [*errors, caught.value]:
        assert "secret" not in str(error)
        assert "secret" not in repr(error.__cause__)


def test_a_file_with_a_byte_order_mark_is_read_and_written(file: Path) -> None:
    write(file, "\ufeff" + WRITTEN_BY_HAND)
    assert set(read_profiles().profile) == {"default", "mine"}
    save_profile("local", ClusterProfile(host="h", api_key="k"))
    assert set(read_profiles().profile) == {"default", "mine", "local"}


# Choosing


def test_the_choice_goes_from_the_option_to_the_file(file: Path) -> None:
    write(file, WRITTEN_BY_HAND + "\n[profile.local]\nhost = 'l'\napi-key = 'k'\n")
    address = {"SILVERBACK_CLUSTER_URI": "https://ci.example", "SILVERBACK_CLUSTER_API_KEY": "k"}
    named = {"SILVERBACK_PROFILE": "local", **address}
    assert choose_profile("mine", "local", environ=named).origin == "option --profile"
    assert choose_profile(None, "mine", "ape-config.yaml:3", environ=named).origin == "ape-config.yaml:3"
    assert choose_profile(environ=named).name == "local"
    assert choose_profile(environ=address).profile == ClusterProfile(host="https://ci.example", api_key="k")
    assert choose_profile(environ={}).name == "mine"


def test_the_local_cluster_is_chosen_when_nothing_else_can_be_used(file: Path) -> None:
    ProfileSettings.from_config_file()  # the platform's profile, and nobody is logged in
    with pytest.raises(NoClusterError, match="ape silverback cluster up"):
        choose_profile(environ={})
    save_profile("local", ClusterProfile(host="h", api_key="k"))
    assert choose_profile(environ={}).name == "local"
    (file.parent / "default.json").write_text("{}")
    assert choose_profile(environ={}).name == "default"


def test_the_environment_is_enough_and_writes_no_file(file: Path) -> None:
    environ = {"SILVERBACK_CLUSTER_URI": "https://ci.example", "SILVERBACK_CLUSTER_API_KEY": "k"}
    choice = choose_profile(environ=environ)
    assert (choice.name, choice.profile.host) == ("environment", "https://ci.example")
    assert not file.parent.exists()


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ("SILVERBACK_CLUSTER_URI", "SILVERBACK_CLUSTER_API_KEY"),
        ("SILVERBACK_CLUSTER_API_KEY", "SILVERBACK_CLUSTER_URI"),
    ],
)
def test_half_of_the_environment_is_an_error(given: str, missing: str) -> None:
    with pytest.raises(ProfileError, match=f"{given} is set, but {missing} is not"):
        choose_profile(environ={given: "x"})


def test_a_profile_that_isnt_there_is_told_with_those_that_are(file: Path) -> None:
    write(file, WRITTEN_BY_HAND)
    with pytest.raises(ProfileError, match=r"no profile 'nowhere' \(option --profile\) in .*; it has: default, mine"):
        choose_profile("nowhere")


@pytest.mark.parametrize(
    ("option", "section", "expected"),
    [
        (None, None, ("space", "cluster")),
        ("a/b", "c/d", ("a", "b")),
        (None, "c/d", ("c", "d")),
        ("b", None, ("space", "b")),
    ],
)
def test_a_cluster_is_chosen(option: str | None, section: str | None, expected: tuple[str, str]) -> None:
    profile = PlatformProfile(host="h", auth="a", default_workspace="space", default_cluster={"space": "cluster"})
    assert choose_cluster(profile, option, section) == expected


@pytest.mark.parametrize("option", [None, "b", "other/", "a/b/c"])
def test_a_cluster_that_isnt_said_whole_is_an_error(option: str | None) -> None:
    profile = PlatformProfile(host="h", auth="a")
    with pytest.raises(ProfileError, match="--cluster"):
        choose_cluster(profile, option)


def test_threads_can_save_too(file: Path) -> None:
    threads = [
        threading.Thread(target=save_profile, args=(f"p{n}", ClusterProfile(host="h", api_key="k"))) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_profiles().profile) == 9


# Plain HTTP


@pytest.mark.parametrize(
    ("host", "insecure", "warned"),
    [
        ("http://far.example", False, True),
        ("http://127.evil.example", False, True),
        ("http://far.example:8080", True, False),
        ("https://safe.example", False, False),
        ("http://127.0.0.1:5", False, False),
        ("http://localhost:5", False, False),
        ("http://[::1]:5", False, False),
    ],
)
def test_a_key_over_plain_http_is_warned_of_once(host: str, insecure: bool, warned: bool) -> None:
    profile = ClusterProfile(host=host, api_key="very-secret", allow_insecure=insecure)
    said: list[str] = []
    for _ in range(2):
        connect(Choice("far", profile, "option --profile"), said.append).close()
    assert len(said) == warned
    assert "very-secret" not in "".join(said)
    assert "very-secret" not in repr(profile) + str(profile)


@pytest.mark.parametrize(
    "host", ["silverback.example", "ftp://far.example", "http://[::1", "https://u:hush@x:port", ""]
)
def test_a_host_that_is_no_address_is_told_with_its_profile(host: str) -> None:
    choice = Choice("far", ClusterProfile(host=host, api_key="k"), "option --profile")
    with pytest.raises(ProfileError, match=r"profile 'far' \(option --profile\): host '.*' isn't an address") as caught:
        connect(choice)
    assert "hush" not in str(caught.value)


def test_a_platform_without_a_login_says_how_to_log_in() -> None:
    choice = Choice("default", PlatformProfile(host="https://far.example", auth="default"), "option --profile")
    with pytest.raises(Unauthorized, match="log in with `ape silverback login`"):
        connect_platform(choice)
