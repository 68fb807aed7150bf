"""Write, in the image's build, what the image is made of: a CycloneDX bill of materials (ECMA-424) in JSON.

It lists the Python packages with their licences, Python itself, and the Debian packages below.

usage: sbom.py FILE IMAGE
"""

# ruff: noqa: INP001  a script of the build: in no package

import importlib.metadata
import platform
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

VENV = "/opt/venv"
DPKG_STATUS = Path("/var/lib/dpkg/status")


def component(kind: str, name: str, version: str, namespace: str | None = None, **more: object) -> Component:
    """Describe one package; its package URL is its reference."""
    url = PackageURL(kind, namespace, name, version, {key: str(value) for key, value in more.items() if value})
    return Component(name=name, version=version, type=ComponentType.LIBRARY, purl=url, bom_ref=str(url))


def python_packages() -> Iterator[Component]:
    """List what is installed in the image's environment, and its Python."""
    yield component("generic", "python", platform.python_version())
    licenses = LicenseFactory()
    folders = [str(path) for path in Path(VENV).glob("lib/python3*/site-packages")]
    for found in importlib.metadata.distributions(path=folders):
        part = component("pypi", found.metadata["Name"].lower().replace("_", "-"), found.version)
        terms = found.metadata.get("License-Expression") or found.metadata.get("License")
        if terms and "\n" not in terms:
            part.licenses.add(licenses.make_from_string(terms))
        yield part


def debian_packages() -> Iterator[Component]:
    """List the installed Debian packages; none where the base image is another system's."""
    if not DPKG_STATUS.exists():
        return
    system = platform.freedesktop_os_release()
    for entry in DPKG_STATUS.read_text(encoding="utf-8").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in entry.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Status") == "install ok installed":
            yield component(
                "deb",
                fields["Package"],
                fields["Version"],
                system["ID"],
                arch=fields.get("Architecture"),
                distro=f"{system['ID']}-{system.get('VERSION_ID', '')}",
            )


def main(path: str, image: str) -> None:
    """Write the bill of materials of `image` to `path`; the same image gives the same file."""
    bom = Bom(components=[*python_packages(), *debian_packages()])
    bom.metadata.component = Component(name=image, type=ComponentType.CONTAINER, bom_ref=image)
    bom.register_dependency(bom.metadata.component, bom.components)
    listed = " ".join(sorted(str(each.purl) for each in bom.components))
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, listed)
    make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_to_file(path, allow_overwrite=True, indent=1)


if __name__ == "__main__":
    main(*sys.argv[1:])
