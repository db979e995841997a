"""How every binary starts and ends: readable help, one line for an error, exit status 2."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Callable

from absl import flags
from ml_collections.config_flags import config_path

from tools import words

_MORE = "Config fields: --helpfull lists them all, and the settings of every method."


def run(
    main: Callable,
    epilog: Callable[[], str] | None = None,
    at_once: Callable[[list[str]], bool] | None = None,
) -> None:
    """Runs a binary's ``main(argv)``.

    Args:
        main: What to do after the flags are parsed.
        epilog: Gives the text that ``--helpfull`` ends with.
        at_once: Does what the words of the command line want, if it can without TensorFlow, and
            returns whether it did.
    """
    program, asked = sys.argv[0], set(sys.argv[1:])
    if asked & {"--help", "-h", "-help", "--helpshort"}:
        print(help_text(main, "" if epilog is None else _MORE))
        return
    if at_once is not None and at_once(sys.argv[1:]):
        return
    # Before the library, which would otherwise import it with all its noise; both take seconds.
    from tools.quiet import tf

    # isort: split
    from tfkd import interruption
    from tfkd.errors import original, reason

    of_the_machine = (OSError, MemoryError, tf.errors.ResourceExhaustedError)
    try:
        if asked & {"--helpfull", "-helpfull"}:
            print(help_text(main, "" if epilog is None else epilog()))
            return
        warnings.showwarning = _show_warning
        interruption.heed()
        main(_parsed(main))
    except interruption.Interrupted as stop:
        _fail(program, str(stop), status=stop.status)
    except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
        _tell(
            program,
            f"another worker is gone ({reason(error)}); the same command on every worker continues",
        )
        sys.stdout.flush()
        # What waits for the other worker is never finished: an orderly end of the interpreter takes
        # its threads and pipes apart in any order, and may print that as an error of its own.
        os._exit(1)
    except Exception as error:
        found = original(error)
        if found is None and not isinstance(error, of_the_machine):
            raise
        _fail(program, str(found or _machine_error(error)))


def _machine_error(error: Exception) -> str:
    """Returns one line for what the machine refuses, wherever that is: a name, a disk, memory."""
    from tfkd.errors import reason

    if isinstance(error, OSError):
        place = "" if error.filename is None else f"{str(error.filename)[:200]!r}: "
        return f"{place}{error.strerror or reason(error)}"
    return f"out of memory ({reason(error)[:200]}); wanted smaller images, batches or networks"


def _parsed(main: Callable) -> list[str]:
    """Returns the command line without its flags, after these were read.

    Raises:
        TfkdError: For a wrong flag, config file or config field.
    """
    from tfkd.errors import TfkdError

    sys.argv[1:], unset = words.without_unset(words.read(sys.argv[1:]))
    try:
        argv = flags.FLAGS(sys.argv)
        for field in unset:
            config_path.set_value(field, flags.FLAGS.config, None)
            flags.FLAGS["config"].override_values[field] = None
        if "config" in flags.FLAGS and flags.FLAGS.config is not None:
            # A file that is missing only fails when the config is looked at.
            getattr(flags.FLAGS.config, "experiment", None)
    # ml_collections lets through whatever a config file raises, and its leaving the program.
    except (Exception, SystemExit) as error:
        raise TfkdError(_flag_error(error)) from None
    if len(argv) > 1 and not getattr(main, "takes_arguments", False):
        raise TfkdError(f"unexpected argument {argv[1]!r}; every option is a --flag")
    return argv


def help_text(main: Callable, further: str = "") -> str:
    """Returns the help of a binary: its docstring, its own flags, and a further text."""
    description = main.__globals__["__doc__"]
    if sys.argv[0].startswith("tfkd "):
        description = re.sub(r"python tools/(\w+)\.py", r"tfkd \1", description)
    own = [
        flag
        for module, listed in flags.FLAGS.flags_by_module_dict().items()
        if module == sys.argv[0] or module.endswith(sys.argv[0]) or module == "__main__"
        for flag in listed
    ]
    lines = [description.strip(), "", "Flags:"]
    for flag in own:
        default = "" if flag.default in (None, "") else f" (default: {flag.default})"
        lines.append(f"  --{flag.name}")
        lines.append(f"      {flag.help}{default}")
    return "\n".join([*lines, *(["", further] if further else [])])


def config_help() -> str:
    """Returns the list of config fields with their defaults and meanings."""
    from tfkd.core import registry
    from tfkd.training import config as configs

    defaults = configs.default()
    lines = [
        "Config fields (--config.FIELD=VALUE; what is optional is unset by none, or by unset where",
        "none is one of its words):",
    ]
    for field, meaning in configs.MEANINGS.items():
        value = defaults
        for key in field.split("."):
            value = value[key]
        lines += _field_help(field, configs.to_dict(value), meaning)
    lines += _field_help(
        "teachers[0].config, teachers[0].seed, ...",
        None,
        "those of teacher, but for dtype and fold, of the first further teacher",
    )
    lines += ["", "Methods that a config may hold, each also with methods.NAME.weight [1.0]:"]
    for name in registry.names():
        for setting, declared in registry.settings(name).items():
            lines += _field_help(f"methods.{name}.{setting}", declared.default, declared.meaning)
    return "\n".join(lines)


def _field_help(field: str, default: object, meaning: str) -> list[str]:
    shown = "" if default in (None, {}, [], ()) else f" [{default}]"
    return [f"  {field}{shown}", *([f"      {meaning}"] if meaning else [])]


def _flag_error(error: BaseException) -> str:
    """Returns one line for what absl and ml_collections raise while they read the flags."""
    text = str(error)
    given = re.search(r"(?:^|\n)--?config[=\n]([^\n]+)", "\n".join(sys.argv[1:]))
    if given is None or isinstance(error, flags.UnrecognizedFlagError):
        return f"{text} (--help lists the flags)"
    from tfkd.training import config as configs

    config = configs.load(given.group(1))
    known = configs.fields(config)
    for word in sys.argv[1:]:
        field, _, value = re.sub(r"^--?config\.", "", word).partition("=")
        if field == word.partition("=")[0]:
            continue
        if field not in known:
            return str(configs.unknown_field(config, field))
        if f"config.{field}=" in text:
            return f"config field {field}: found {value!r}, wanted {known[field].__name__}"
    return f"{text} (--help lists the flags)"


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    from tfkd.errors import TfkdWarning

    if issubclass(category, TfkdWarning):
        print(f"warning: {message}", file=sys.stderr, flush=True)


def _fail(program: str, line: str, status: int = 2) -> None:
    _tell(program, line)
    sys.exit(status)


def _tell(program: str, line: str) -> None:
    print(f"{os.path.basename(program)}: {' '.join(line.split())}", file=sys.stderr, flush=True)


def _check_flagfiles() -> None:
    try:
        flags.FLAGS.read_flags_from_files(sys.argv[1:], force_gnu=False)
    except (flags.Error, OSError, ValueError) as error:
        from tfkd.errors import reason

        found = reason(error).rpartition(":: ")[2]
        _fail(sys.argv[0], f"--flagfile: {found}; wanted a text file of flags, one a line")


# Whoever defines the flag of a config already reads these files, outside of `run`.
_check_flagfiles()
