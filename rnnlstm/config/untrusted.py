"""Reads files that others may have written, and resolves references: a configuration is data, and runs no code.

YAML tags would construct Python objects, and aliases grow exponentially in memory: both are refused before anything
is constructed. OmegaConf's resolvers read the environment, so only references to other keys are accepted.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import stat
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

import yaml

from rnnlstm.config.errors import ConfigError, OptionError, show
from rnnlstm.config.hydra_habits import instead_of_key

MOST_FILES = 1000  # files and folders in a --config-dir
LARGEST_FILE = 65_536  # bytes of one YAML file
LARGEST_FOLDER = 1_048_576  # bytes of all YAML files in a --config-dir

#: Groups that every configuration has a choice of.
GROUPS = ("task", "model", "optimizer", "clip", "probe", "curriculum")
#: An entry of a defaults list: a choice of a group, never a path out of the folder.
DEFAULTS_ENTRY = re.compile(r"(?:(?:optional|override) )*/?\w[\w.-]*(?:/\w[\w.-]*)*", re.ASCII)
HEADER = re.compile(r"#\s*@")  # a line of a YAML file's header, as Hydra reads it
DEEPEST = 12  # sections within sections in a YAML file
LONGEST_TEXT = 1000  # characters of a text, once its references are resolved
MOST_BITS = 10_000  # of a whole number: Python prints none of more than 4,300 digits

#: The only kind of interpolation that is accepted: another key, by its full name.
REFERENCE = re.compile(r"\$\{([A-Za-z_]\w*(?:\.\w+)*)\}", re.ASCII)
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # LibYAML's is ten times faster, where PyYAML has it


def config_folder() -> Path:
    """The folder of YAML files: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def own_folder(place: str) -> Path:
    """The folder given with --config-dir, checked. Raises: ConfigError."""
    try:
        folder = Path(place).resolve()
        is_folder = bool(place) and folder.is_dir()
    except (OSError, ValueError) as error:
        raise ConfigError(f"--config-dir {show(place)}: {error}") from None
    if not is_folder:
        raise ConfigError(f"--config-dir {show(place)}: is not a folder")
    if not str(folder).isprintable() or any(c in str(folder) for c in "$\\'"):
        raise ConfigError(f"--config-dir {show(folder)}: a folder's name with $, \\ or ' can't be used here")
    check_folder(folder)
    return folder


def open_regular(path: Path, flags: int = os.O_RDONLY, links: bool = False) -> int:
    """A descriptor of a regular file, close-on-exec. `links`: the path may be a symbolic link.

    A folder from others may hold a link to any file, and a pipe or a device, at which a command would wait for ever.
    A file that has a second name elsewhere is not opened for writing. Raises: OSError, whose text says which it is.
    """
    name = "" if flags == os.O_RDONLY else f"{path} "  # a reader's message begins with the file
    try:
        descriptor = os.open(
            path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | (0 if links else os.O_NOFOLLOW), 0o666
        )
    except OSError as error:
        if error.errno == errno.ELOOP and (path.exists() or (name and path.is_symlink())):
            raise OSError(errno.ELOOP, f"{name}is a link, which is not followed here") from None
        if error.errno == errno.ENXIO:  # a pipe without a reader, or a socket
            raise OSError(errno.ENXIO, f"{name}is no file") from None
        raise
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, f"{name}is no file")
        if flags != os.O_RDONLY and status.st_nlink > 1:
            raise OSError(errno.EMLINK, f"{name}has a second name elsewhere (a hard link)")
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def read_regular(path: Path, links: bool = False) -> BufferedReader:
    """A regular file, open for reading. Raises: OSError as `open_regular`."""
    return os.fdopen(open_regular(path, links=links), "rb")


def read_yaml(path: Path) -> Any:
    """The plain values in a YAML file. Raises: ValueError that names the rule it breaks; OSError."""
    return _parse_yaml(_bytes(path))


class ShadowedError(Exception):
    """A file has the name of one of the project's, which Hydra would read instead."""


def check_folder(folder: Path) -> None:
    """Check every YAML file in a folder that Hydra could read. Raises: ConfigError."""
    total = 0
    for path in _yaml_files(folder):
        try:
            data = _bytes(path, links=True)
            total += len(data)
            if total > LARGEST_FOLDER:
                raise ValueError(f"the YAML files are larger than {LARGEST_FOLDER:,} bytes together")
            tree = _check_group_file(data)
            place = path.relative_to(folder)
            if place.parts[0] == "experiment":
                _check_package(data, tree)
                _check_experiment(tree or {})
            projects = config_folder() / place
            if projects.is_file() and read_yaml(projects) != tree:
                raise ShadowedError(
                    f"{path} differs from the project's {place}, which counts; give yours another name"
                )
        except ShadowedError as error:
            raise ConfigError(f"--config-dir: {error}") from None
        except (ValueError, OSError) as error:
            rule = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(f"--config-dir: {os.fspath(path)} can't be read: {rule}") from None


def read_text(text: str) -> Any:
    """The plain values in a piece of YAML on a command line. Raises: ConfigError."""
    try:
        return _parse_yaml(text.encode())
    except ValueError as error:
        raise ConfigError(f"{show(text)} can't be read: {error}") from None


def check_run(place: str) -> None:
    """Check the files of a run folder, or of one seed's folder, before they are parsed. Raises: OptionError."""
    try:
        folder = Path(place).expanduser()
        for path in (folder / "config.yaml", folder.parent / "config.yaml"):
            if path.exists() and not isinstance(read_yaml(path), dict):
                raise ValueError(f"{path.name} holds no keys")
        for path in (*folder.glob("weights.pt"), *folder.glob("seed_*/weights.pt")):
            check_weights(path)
    except (ValueError, OSError, RuntimeError) as error:
        rule = error.strerror if isinstance(error, OSError) else error
        raise OptionError("weights", place, f"can't be read: {rule}") from None


def check_weights(path: Path) -> None:
    """Check that weights need no more memory than disk. Raises: ValueError; OSError."""
    with read_regular(path) as file:
        try:
            check_archive(file)
        except ValueError as error:
            raise ValueError(f"{path.name} {error}") from None


def check_archive(file: IO[bytes]) -> None:
    """Check that what `torch.save` wrote needs no more memory than disk. Raises: ValueError; OSError."""
    size = file.seek(0, os.SEEK_END)
    try:
        entries = zipfile.ZipFile(file).infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        raise ValueError("holds no weights") from None
    if any(e.compress_type != zipfile.ZIP_STORED for e in entries) or sum(e.file_size for e in entries) > size:
        raise ValueError("is compressed, which torch.save doesn't do")
    file.seek(0)


def _yaml_files(folder: Path) -> Iterator[Path]:
    count = 0
    for place, folders, files in os.walk(folder, followlinks=True):
        count += len(folders) + len(files)
        if count > MOST_FILES:
            raise ConfigError(f"--config-dir {folder}: more than {MOST_FILES:,} files; name a folder of YAML alone")
        yield from (Path(place, name) for name in sorted(files) if name.endswith(".yaml"))


def _bytes(path: Path, links: bool = False) -> bytes:
    with read_regular(path, links) as file:
        data = file.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise ValueError(f"larger than {LARGEST_FILE:,} bytes")
    return data


def _parse_yaml(data: bytes) -> Any:
    """Plain values. The parser's events are checked first, since they need no more memory than the text."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"is no UTF-8 text ({error.reason} at byte {error.start:,})") from None
    if text.startswith("\ufeff"):
        raise ValueError("begins with a byte order mark")
    try:
        _check_events(yaml.parse(text, Loader))
        value = yaml.load(text, Loader)
        repr(value)
        return value
    except yaml.YAMLError as error:
        raise ValueError(yaml_problem(error)) from None
    except ValueError as error:
        if "integer string conversion" in str(error):  # Python reads and prints no more than 4,300 digits
            raise ValueError("holds a number of thousands of digits") from None
        raise


@dataclass
class _Node:
    """A part of a YAML text, with every alias within it replaced by what it names."""

    anchor: str | None
    size: int = 1  #: characters of its scalars, and one for each node
    depth: int = 1  #: sections within each other


def _check_events(events: Iterable[yaml.Event]) -> None:
    """Refuse tags, too many sections within each other, and aliases that make a text too large, from the parser's
    events alone. Raises: ValueError."""
    opened: list[_Node] = [_Node(None)]  # the text as a whole, and the sections that are not at their end
    anchors: dict[str, _Node] = {}

    def add(node: _Node) -> None:
        if node.anchor is not None:
            anchors[node.anchor] = node
        if len(opened) - 1 + node.depth > DEEPEST:
            raise ValueError(f"more than {DEEPEST} sections within each other")
        opened[-1].size += node.size
        opened[-1].depth = max(opened[-1].depth, 1 + node.depth)

    for event in events:
        if getattr(event, "tag", None) is not None:
            raise ValueError(f"tags ({event.tag}) are not accepted")
        if isinstance(event, yaml.CollectionStartEvent):
            opened.append(_Node(event.anchor))
            if len(opened) - 1 > DEEPEST:  # before the parser goes deeper
                raise ValueError(f"more than {DEEPEST} sections within each other")
        elif isinstance(event, yaml.CollectionEndEvent):
            add(opened.pop())
        elif isinstance(event, yaml.ScalarEvent):
            add(_Node(event.anchor, 1 + len(event.value), 0))
        elif isinstance(event, yaml.AliasEvent) and (node := anchors.get(event.anchor)) is not None:
            add(node)
            if sum(each.size for each in opened) > LARGEST_FILE:
                raise ValueError(f"larger than {LARGEST_FILE:,} characters, aliases (*) replaced by what they name")
        elif isinstance(event, yaml.AliasEvent) and any(node.anchor == event.anchor for node in opened):
            raise ValueError(f"the alias *{event.anchor} stands within what it names")


def yaml_problem(error: yaml.YAMLError) -> str:
    """What is wrong with the YAML, and in which line."""
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    mark = getattr(error, "problem_mark", None)
    return problem if mark is None else f"line {mark.line + 1}: {problem}"


def _check_package(data: bytes, tree: Any) -> None:
    """An experiment's keys are those of the whole configuration, which Hydra is told in the file's header.

    Raises: ValueError.
    """
    header = itertools.takewhile(HEADER.match, (line.strip() for line in data.decode().splitlines() if line.strip()))
    if set(tree or ()) - {"defaults"} and not any(line.split()[-2:] == ["@package", "_global_"] for line in header):
        rule = "an experiment needs the header # @package _global_ in its first line"
        raise ValueError(f"{rule}; without it, its keys would lie under experiment")


def _check_experiment(tree: dict[str, Any]) -> None:
    """A choice within a group is made in the defaults list. Raises: ValueError."""
    for group in GROUPS:
        section = tree.get(group)
        choice = section.get("name") if isinstance(section, dict) else section
        if isinstance(choice, str) and DEFAULTS_ENTRY.fullmatch(choice):
            raise ValueError(f"{group} is chosen in its defaults list: - override /{group}: {show(choice)}")


def _instead(section: Any) -> str:
    """For the first key of a section `hydra`, what to write here, if that is known."""
    key = "hydra"
    while isinstance(section, dict) and section:
        name, section = next(iter(section.items()))
        key = f"{key}.{name}"
    plain = section if isinstance(section, str | int | float) else ""
    instead = instead_of_key(key, str(plain))
    return f": {show(key)}: {instead}" if instead else f": {show(key)}"


def _check_group_file(data: bytes) -> Any:
    """Check one YAML file, and return its values. Hydra's own keys can't be set in a file either.

    Raises: ValueError.
    """
    tree = _parse_yaml(data)
    for line in data.decode("utf-8").splitlines():
        if line.lstrip().startswith("#") and "@package" in line and "hydra" in line:
            raise ValueError("Hydra's own keys can't be set")
    if tree is None:
        return None
    if not isinstance(tree, dict):
        raise ValueError("holds no keys")
    if "hydra" in tree:
        raise ValueError(f"Hydra's own keys can't be set{_instead(tree['hydra'])}")
    for key, value in tree.items():
        if not isinstance(key, str):
            raise ValueError(f"its keys must be texts, not {show(key)}")
        if "." in key:
            section, _, name = key.partition(".")
            raise ValueError(f"{show(key)}: a file has sections: {show(section)}: {{{show(name)}: {show(value)}}}")
        check_references(key, value)
    defaults = tree.get("defaults", [])
    if not isinstance(defaults, list):
        raise ValueError("defaults must be a list")
    for entry in defaults:
        words = [*itertools.chain(*entry.items())] if isinstance(entry, dict) and len(entry) == 1 else [entry]
        for word in words:
            fits = isinstance(word, str) and DEFAULTS_ENTRY.fullmatch(word) and "hydra" not in word
            if word is not None and not fits:
                raise ValueError(f"defaults: {show(word)} is no choice of a group")
    return tree


def check_override(text: str) -> None:
    """Check that an override is a text that a terminal can show. Raises: ConfigError."""
    if not isinstance(text, str):
        raise ConfigError(f"can't read {show(text)}: an override is a text, key=value")
    if not text.isprintable():
        raise ConfigError(f"can't read {show(text)}: it holds a character that can't be printed")


def check_references(key: str, value: Any) -> None:
    """Check that texts in `value` refer to nothing but other keys. Raises: OptionError."""
    if isinstance(value, Mapping):
        for name, entry in value.items():
            check_references(key, name)
            check_references(f"{key}.{name}", entry)
    elif isinstance(value, list):
        for entry in value:
            check_references(key, entry)
    elif "${" in REFERENCE.sub(" ", str(value)):
        raise OptionError(key, value, "only references to keys by their full name are accepted: ${task.length}")


def resolve(tree: Mapping[Any, Any]) -> dict[str, Any]:
    """`tree` with each reference replaced by the single value that it names.

    OmegaConf would also run resolvers, and copy whole sections, which grow exponentially. Here each key is resolved
    once.

    Raises: OptionError.
    """
    resolved: dict[str, Any] = {}

    def plain(key: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            for name in value:
                if not isinstance(name, str):
                    raise OptionError(f"{key}.{show(name)}".strip("."), value[name], "unknown key; keys are texts")
            return {name: plain(f"{key}.{name}" if key else name, entry) for name, entry in value.items()}
        if isinstance(value, list):
            return [plain(key, entry) for entry in value]
        if isinstance(value, int) and value.bit_length() > MOST_BITS:
            raise OptionError(key, value, "too large")
        check_references(key, value)
        if not isinstance(value, str) or "${" not in value:
            return value
        if whole := REFERENCE.fullmatch(value):
            return look_up(key, value, whole[1])
        text = REFERENCE.sub(lambda match: str(look_up(key, value, match[1])), value)
        if len(text) > LONGEST_TEXT:
            raise OptionError(key, value, f"becomes longer than {LONGEST_TEXT:,} characters")
        return text

    def look_up(key: str, text: str, path: str) -> Any:
        node: Any = tree
        for step in path.split("."):
            if not isinstance(node, Mapping) or step not in node:
                raise OptionError(key, text, f"there is no key {path}")
            node = node[step]
        if isinstance(node, Mapping | list):
            raise OptionError(key, text, f"{path} is no single value")
        if path not in resolved:
            resolved[path] = looking = object()
            try:
                value = plain(path, node)
            finally:
                if resolved[path] is looking:
                    del resolved[path]
            resolved[path] = value
        elif type(resolved[path]) is object:
            raise OptionError(key, text, "recursive: the reference comes back to itself")
        return resolved[path]

    return {str(name): entry for name, entry in plain("", tree).items()}
