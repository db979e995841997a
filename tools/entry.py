"""How every binary starts and ends: readable help, one line for an error, exit status 2."""

from __future__ import annotations

import difflib
import os
import re
import sys
import warnings
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import flags

from tfkd.errors import TfkdError, TfkdWarning

_CONFIG_ERRORS = (
    AttributeError,
    ImportError,
    KeyError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What ml_collections lets through from a config file or a wrong field."""


def run(main: Callable, epilog: Callable[[], str] | None = None) -> None:
    """Runs a binary's ``main(argv)``.

    Args:
        main: What to do after the flags are parsed.
        epilog: Gives the text that ``--help`` ends with.
    """
    program = sys.argv[0]
    if any(word in ("--help", "-h", "-help", "--helpshort") for word in sys.argv[1:]):
        print(help_text(sys.modules[main.__module__].__doc__ or "", epilog))
        sys.exit(0)
    warnings.showwarning = _show_warning
    try:
        argv = flags.FLAGS(sys.argv)
    except flags.Error as error:
        _fail(program, f"{error} (--help lists the flags)")
    except _CONFIG_ERRORS as error:
        _fail(program, _config_error(error))
    if len(argv) > 1 and not getattr(main, "takes_arguments", False):
        _fail(program, f"unexpected argument {argv[1]!r}; every option is a --flag")
    try:
        main(argv)
    except TfkdError as error:
        _fail(program, str(error))
    except KeyboardInterrupt:
        _fail(program, "interrupted; the same command continues", status=130)


def help_text(description: str, epilog: Callable[[], str] | None = None) -> str:
    """Returns the help of a binary: its docstring, its own flags, and a further text."""
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
    if epilog is not None:
        lines += ["", epilog()]
    return "\n".join(lines)


def config_help() -> str:
    """Returns the list of config fields with their defaults and meanings."""
    from tfkd.training import config as configs

    lines = ["Config fields (--config.FIELD=VALUE):"]
    reference = configs.default()
    for field, meaning in configs.MEANINGS.items():
        value = reference
        for key in field.split("."):
            value = value[key]
        shown = "" if value is None else f" [{configs.to_dict(value)}]"
        lines.append(f"  {field}{shown}")
        lines.append(f"      {meaning}")
    lines.append("  distiller[0].weight, distiller[0].settings.NAME")
    lines.append("      weight and hyper-parameters of the first method")
    return "\n".join(lines)


def _config_error(error: Exception) -> str:
    """Returns one line for what ml_collections raises while it reads ``--config``."""
    text = " ".join(str(error).split())
    given = next((word for word in sys.argv[1:] if re.match(r"--?config(=|$)", word)), "--config")
    if isinstance(error, TfkdError):
        return text
    if isinstance(error, FileNotFoundError) or "No such file" in text:
        return f"{given}: no such file, wanted a Python file with get_config, as in configs/"
    overridden = [re.match(r"--?config\.([^=]+)", word) for word in sys.argv[1:]]
    for match in filter(None, overridden):
        field = match.group(1)
        key = re.sub(r"\[\d+\]$", "", field.split(".")[-1])
        if isinstance(error, (AttributeError, KeyError)) and key in text:
            from tfkd.training import config as configs

            near = difflib.get_close_matches(field, list(configs.MEANINGS), n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            return f"unknown config field {field!r}{hint} (--help lists the fields)"
    return f"{given}: {type(error).__name__}: {text}"


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    if issubclass(category, TfkdWarning):
        print(f"warning: {message}", file=sys.stderr, flush=True)


def _fail(program: str, line: str, status: int = 2) -> None:
    print(f"{os.path.basename(program)}: {' '.join(line.split())}", file=sys.stderr, flush=True)
    sys.exit(status)
