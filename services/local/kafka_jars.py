"""The jars of Apache Kafka: fetched with Maven the first time, then kept in a cache folder."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

KAFKA_VERSION: Final = "4.4.0"
"""Of Apache Kafka."""

OLDEST_JAVA: Final = 17
"""The oldest Java that its broker runs on."""

_LOGGING_VERSION: Final = "1.7.36"
"""Of the logging back end; Kafka's own jars bring the front end of this line, and no back end."""

_POM: Final = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>daybook</groupId>
  <artifactId>local-kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>{_LOGGING_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""

_WANTED: Final = (
    "Install Java 17 or later and Maven, for instance: apt-get install openjdk-17-jre-headless maven"
)


class KafkaMissingError(Exception):
    """Apache Kafka cannot be had here; the message says what to install."""


@dataclass(frozen=True, slots=True)
class Java:
    """The command of a Java, and its version, as in 17.0.15."""

    command: Path
    version: str


def find_java() -> Java:
    """Return the Java of JAVA_HOME, else of PATH. Raises KafkaMissingError where none fits."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which(str(Path(home, "bin", "java"))) if home else shutil.which("java")
    if found is None:
        raise KafkaMissingError(f"a local Kafka needs Java, which is not here. {_WANTED}")
    asked = [found, "-version"]
    said = subprocess.run(asked, capture_output=True, text=True, check=False).stderr  # noqa: S603 - Java itself
    version = re.search(r'version "((\d+)[^"]*)"', said)
    if version is None or int(version[2]) < OLDEST_JAVA:
        raise KafkaMissingError(
            f"a local Kafka needs Java {OLDEST_JAVA}; {found} says: {said.strip()}. {_WANTED}"
        )
    return Java(Path(found), version[1])


def kafka_jars() -> Path:
    """Return the folder of the jars, which are fetched where they are not there yet.

    The folder is below DAYBOOK_CACHE, or else ~/.cache/daybook. Raises KafkaMissingError where Maven is
    missing or cannot fetch them.
    """
    cache = Path(os.environ.get("DAYBOOK_CACHE") or Path.home() / ".cache" / "daybook")
    jars = cache / f"kafka-{KAFKA_VERSION}"
    if jars.is_dir():
        return jars
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"kafka-{KAFKA_VERSION}.lock").open("w") as lock:
        # Maven's own repository does not bear two that fetch the same; the second one waits, and finds them.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jars.is_dir():
            _fetch(jars)
    return jars


def _fetch(jars: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaMissingError(f"the jars of Kafka are fetched with Maven, which is not here. {_WANTED}")
    print(f"Fetching Apache Kafka {KAFKA_VERSION} with Maven, once, into {jars} …", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="kafka-", dir=jars.parent) as name:
        making = Path(name)
        (making / "pom.xml").write_text(_POM, encoding="utf-8")
        fetching = subprocess.run(  # noqa: S603 - the Maven that was found
            [
                maven,
                "--batch-mode",
                "--quiet",
                "--strict-checksums",
                f"--file={making / 'pom.xml'}",
                "dependency:copy-dependencies",
                "-DincludeScope=runtime",
                f"-DoutputDirectory={making / 'jars'}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if fetching.returncode:
            raise KafkaMissingError(f"Maven could not fetch Apache Kafka {KAFKA_VERSION}:\n{fetching.stdout}")
        # Only whole folders have the name that others look for.
        (making / "jars").rename(jars)
