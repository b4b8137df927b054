"""Writes the programs of getting-started.md to a folder: extract.py PAGE FOLDER."""

import pathlib
import re
import sys

page, folder = pathlib.Path(sys.argv[1]).read_text(), pathlib.Path(sys.argv[2])
blocks = re.findall(r"^```(\S+)\n(.*?)^```$", page, re.M | re.S)


def nth(kind, number):
    found = [body for name, body in blocks if name.split(",")[0] == kind]
    if len(found) <= number:
        sys.exit(f"{sys.argv[1]} has no block {number} of {kind}")
    return found[number]


echo, serve, function = (nth("rust", number) for number in range(3))
if "    Ok(())\n}\n" not in echo:
    sys.exit("the first program does not end as expected")
(folder / "setup.sh").write_text(nth("sh", 0))
(folder / "echo.rs").write_text(echo)
# As the page says: the function is added, and called at the end of `main`.
end = echo.rindex("    Ok(())\n}\n")
(folder / "serve.rs").write_text(echo[:end] + "    serve(api()).await?;\n" + echo[end:] + "\n" + serve)
(folder / "main.rs").write_text(function)
lines = [line for line in nth("text", 0).splitlines() if line[:2] in ("> ", "< ")]
pairs = [(asked[2:], got[2:]) for asked, got in zip(lines[::2], lines[1::2])]
if len(pairs) < 2:
    sys.exit("the page has no transcript")
(folder / "transcript.tsv").write_text("".join(f"{asked}\t{got}\n" for asked, got in pairs))
