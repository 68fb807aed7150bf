"""The manifests of Kubernetes, without a cluster: by published schemas, each other, and what `fed` writes and reads."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from services import cli, settings
from services.client.claim import claim
from services.client.secagg import load_keys
from services.errors import ConflictError, DataError, UsageError
from services.init.identities import HOSTS
from services.paths import CA_CERTIFICATE, MANIFEST, SERVER_CERTIFICATE, SERVER_KEY, secagg_public_key
from services.server.results import RunFolder
from services.server.trust import DENIED
from services.transport import tls
from tests.support import REPOSITORY, deadline, logging_kept
from tests.test_docs import known_keys

FOLDER = REPOSITORY / "deploy" / "kubernetes"
RELEASE = "1.37"
"""The release of Kubernetes whose schemas the manifests keep to."""

KUSTOMIZATION = "kustomization.yaml"
NAME, COMPONENT = "app.kubernetes.io/name", "app.kubernetes.io/component"
ROLES = ("init", "server", "client")


def load(path: Path) -> list[dict[str, Any]]:
    """Read the documents of a file."""
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


BASE: dict[str, Any] = load(FOLDER / KUSTOMIZATION)[0]
OBJECTS = [(name, document) for name in BASE["resources"] for document in load(FOLDER / name)]
IDS = [f"{document['kind']}-{document['metadata']['name']}" for _, document in OBJECTS]


def find(kind: str, name: str) -> dict[str, Any]:
    """Give the one object of a kind and a name."""
    (found,) = [each for _, each in OBJECTS if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def of_kind(kind: str) -> list[dict[str, Any]]:
    """List the objects of a kind."""
    return [each for _, each in OBJECTS if each["kind"] == kind]


PODS: dict[str, dict[str, Any]] = {
    each["metadata"]["name"]: each["spec"]["template"] for kind in ("Job", "StatefulSet") for each in of_kind(kind)
}
"""The templates of pods, by role."""

CONTAINERS: list[tuple[str, dict[str, Any]]] = [
    (role, part)
    for role, pod in PODS.items()
    for part in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"])
]

each_container = pytest.mark.parametrize(
    ("role", "container"), CONTAINERS, ids=[f"{role}-{part['name']}" for role, part in CONTAINERS]
)


def container(role: str, name: str) -> dict[str, Any]:
    """Give one container of a role's pod."""
    (found,) = [part for owner, part in CONTAINERS if (owner, part["name"]) == (role, name)]
    return found


def generated(kind: str) -> dict[str, list[str]]:
    """Give the files that each ConfigMap or Secret is made from."""
    return {each["name"]: each.get("files", []) + each.get("envs", []) for each in BASE[f"{kind}Generator"]}


def settings_env() -> dict[str, str]:
    """Read the settings that pods share."""
    lines = (FOLDER / "settings.env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def environment(role: str, name: str) -> dict[str, str | None]:
    """Tell a container's variables; None is the value of one that is taken from the pod."""
    found = container(role, name)
    shared = settings_env() if {"configMapRef": {"name": "settings"}} in found.get("envFrom", ()) else {}
    return {**shared, **{each["name"]: each.get("value") for each in found.get("env", ())}}


IDENTITIES = int(settings_env()["MAX_CLIENTS"])


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder as an operator makes it complete: with identities and an experiment."""
    folder = tmp_path_factory.mktemp("kubernetes") / "base"
    listed = ("*.yaml", "*.env", "*.txt", "serve")
    folder.mkdir()
    for path in (path for pattern in listed for path in FOLDER.glob(pattern)):
        shutil.copy(path, folder)
    shutil.copy(REPOSITORY / "experiment.yml", folder)
    command = ["certs", "--folder", str(folder / "certs"), "--clients", str(IDENTITIES), "--host", "server"]
    with logging_kept():
        assert cli.main(command) == 0
    return folder


# -- form -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", [document for _, document in OBJECTS], ids=IDS)
def test_a_manifest_keeps_to_the_published_schema(document: dict[str, Any]) -> None:
    """Every object has the fields and values of that release of Kubernetes, and no others."""
    assert kubernetes_validate.validate(document, RELEASE, strict=True) == RELEASE


def test_the_check_of_schemas_is_one() -> None:
    """A field that Kubernetes does not know is an error."""
    wrong = find("Service", "server") | {"specification": {}}
    with pytest.raises(kubernetes_validate.ValidationError, match="specification"):
        kubernetes_validate.validate(wrong, RELEASE, strict=True)


def test_every_file_is_listed() -> None:
    """Each manifest in the folder is a resource, each resource is there, and no two objects share a name."""
    assert sorted(BASE["resources"]) == sorted({path.name for path in FOLDER.glob("*.yaml")} - {KUSTOMIZATION})
    assert len(IDS) == len(set(IDS))


def test_what_an_operator_adds_is_not_tracked() -> None:
    """Whatever a ConfigMap or Secret is made from is in the repository, or is ignored by it, as keys are."""
    files = {file for kind in ("configMap", "secret") for names in generated(kind).values() for file in names}
    ignored = (REPOSITORY / ".gitignore").read_text(encoding="utf-8").splitlines()
    missing = {file.split("/")[0] for file in files if file.startswith("certs/") or not (FOLDER / file).exists()}
    assert missing | {"experiment.yml"} == {"certs", "experiment.yml"}
    assert {"/deploy/kubernetes/certs/", "/deploy/kubernetes/experiment.yml"} <= set(ignored)


def test_every_image_is_ours() -> None:
    """Each container runs the image whose name and tag are set in one place, and the tag is one that stays."""
    assert {part["image"] for _, part in CONTAINERS} == {each["name"] for each in BASE["images"]}
    assert all(each["newTag"] != "latest" for each in BASE["images"])


# -- rights -----------------------------------------------------------------------------------------------------------


def test_the_namespace_takes_restricted_pods_alone() -> None:
    """Pod Security Admission enforces, audits and warns by its strictest profile."""
    labels = find("Namespace", BASE["namespace"])["metadata"]["labels"]
    modes = {key.partition("/")[2]: value for key, value in labels.items() if key.startswith("pod-security")}
    assert modes == dict.fromkeys(("enforce", "audit", "warn"), "restricted")


@pytest.mark.parametrize("role", ROLES)
def test_a_pod_is_nobody_in_the_cluster(role: str) -> None:
    """It is the image's user, with Kubernetes' system call filter, no account's token and nothing of the host."""
    spec = PODS[role]["spec"]
    user = re.search(r"USER (\d+):(\d+)", (REPOSITORY / "Dockerfile").read_text(encoding="utf-8").split("FROM")[-1])
    assert user is not None
    ids = {"runAsUser": int(user[1]), "runAsGroup": int(user[2]), "fsGroup": int(user[2])}
    assert spec["securityContext"] == ids | {
        "runAsNonRoot": True,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert spec["automountServiceAccountToken"] is spec["enableServiceLinks"] is False
    assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName"}
    assert {kind for volume in spec["volumes"] for kind in volume.keys() - {"name"}} <= {
        "configMap", "emptyDir", "persistentVolumeClaim", "secret",
    }  # fmt: skip


@each_container
def test_a_container_can_not_become_more(role: str, container: dict[str, Any]) -> None:
    """Its root is read-only, it has no capability and gains none, and it has limits."""
    del role
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    resources = container["resources"]
    assert {key: sorted(resources[key]) for key in resources} == {
        "requests": ["cpu", "memory"],
        "limits": ["cpu", "memory"],
    }


WRITABLE = {
    ("init", "init"): {"/fed/data/shards", "/fed/data/test", "/tmp"},  # noqa: S108 - paths in the pod
    ("server", "server"): {"/fed/results", "/tmp"},  # noqa: S108
    ("client", "client"): {"/tmp"},  # noqa: S108
    ("client", "identity"): {"/fed/certs/clients"},
}
"""What each container may write into; others nothing."""


@each_container
def test_a_container_writes_what_is_its_own(role: str, container: dict[str, Any]) -> None:
    """Every mount is read-only but for those that the role writes, as in the Compose file."""
    written = {each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")}
    assert written == WRITABLE.get((role, container["name"]), set())


@pytest.mark.parametrize("role", ROLES)
def test_every_mount_has_its_volume(role: str) -> None:
    """Each mount names a volume of the pod, each volume is mounted, and its claim, ConfigMap or Secret is there."""
    spec = PODS[role]["spec"]
    owner = [each for each in of_kind("StatefulSet") if each["metadata"]["name"] == role]
    templates = {each["metadata"]["name"] for set_ in owner for each in set_["spec"].get("volumeClaimTemplates", ())}
    mounted = {
        each["name"] for part in (*spec.get("initContainers", ()), *spec["containers"]) for each in part["volumeMounts"]
    }
    assert mounted == {volume["name"] for volume in spec["volumes"]} | templates
    claims = {each["metadata"]["name"] for each in of_kind("PersistentVolumeClaim")}
    for volume in spec["volumes"]:
        assert volume.get("configMap", {}).get("name", "plan") in generated("configMap")
        assert volume.get("secret", {}).get("secretName", "server-identity") in generated("secret")
        assert volume.get("persistentVolumeClaim", {}).get("claimName", "test") in claims


def test_what_is_shared_by_nodes_may_be() -> None:
    """What init writes is claimed for many nodes, and results for one."""
    for claim_ in of_kind("PersistentVolumeClaim"):
        assert claim_["spec"]["accessModes"] == ["ReadWriteMany"]
    (results,) = find("StatefulSet", "server")["spec"]["volumeClaimTemplates"]
    assert results["spec"]["accessModes"] == ["ReadWriteOnce"]


# -- network ----------------------------------------------------------------------------------------------------------


def matches(selector: dict[str, Any], role: str) -> bool:
    """Tell whether a selector of pods takes those of a role."""
    labels: dict[str, str] = PODS[role]["metadata"]["labels"]
    wanted: dict[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= labels.items()


def allowed(direction: str, role: str) -> set[tuple[str, int]]:
    """List whom a role's pods may call, or may be called by, and the port; who is no pod of ours goes by its label."""
    found = set()
    for policy in of_kind("NetworkPolicy"):
        if not matches(policy["spec"]["podSelector"], role):
            continue
        for rule in policy["spec"].get(direction, ()):
            for peer in rule["from" if direction == "ingress" else "to"]:
                own = () if "namespaceSelector" in peer else ROLES
                roles = {other for other in own if matches(peer["podSelector"], other)}
                label = {"/".join(peer["podSelector"]["matchLabels"].values())}
                found |= {(name, port["port"]) for name in roles or label for port in rule["ports"]}
    return found


def test_nobody_reaches_anybody_by_default() -> None:
    """One policy takes every pod, both ways, and allows nothing."""
    assert find("NetworkPolicy", "nobody")["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_clients_reach_the_server_and_nobody_else() -> None:
    """Clients call the server's federation port and the name server; who is labelled reads status; that is all."""
    assert {(way, role): allowed(way, role) for way in ("ingress", "egress") for role in ROLES} == {
        ("ingress", "init"): set(),
        ("ingress", "client"): set(),
        ("ingress", "server"): {("client", 8765), ("monitoring", 8000)},
        ("egress", "init"): set(),
        ("egress", "client"): {("server", 8765), ("kube-dns", 53)},
        ("egress", "server"): set(),
    }


def test_every_selector_takes_its_role() -> None:
    """Services, sets, budgets and spreads of a role select the pods of that role and of no other."""
    others = [*of_kind("StatefulSet"), *of_kind("PodDisruptionBudget")]
    selectors = [
        *((each["metadata"]["labels"][COMPONENT], each["spec"]["selector"]) for each in of_kind("Service")),
        *((each["metadata"]["labels"][COMPONENT], each["spec"]["selector"]["matchLabels"]) for each in others),
        *(
            ("client", spread["labelSelector"]["matchLabels"])
            for spread in PODS["client"]["spec"]["topologySpreadConstraints"]
        ),
    ]
    for role, labels in selectors:
        assert labels == {NAME: "fed", COMPONENT: role}
        assert [other for other in ROLES if matches({"matchLabels": labels}, other)] == [role]


def test_a_client_finds_the_server() -> None:
    """The address that clients dial is that of a Service, its port the server's, and the certificate has its name."""
    uri = environment("client", "client")["SERVER_URI"]
    (port,) = [each for each in find("Service", "server")["spec"]["ports"] if each["name"] == "federation"]
    ports = {each["name"]: each["containerPort"] for each in container("server", "server")["ports"]}
    assert uri == f"wss://{find('Service', 'server')['metadata']['name']}:{port['port']}"
    assert ports[port["targetPort"]] == int(environment("server", "server")["PORT"] or 0) == 8765
    assert ports["status"] == int(environment("server", "server")["STATUS_PORT"] or 0) == 8000
    assert "server" in HOSTS


def test_a_set_has_the_service_that_names_its_pods() -> None:
    """Each StatefulSet names a headless Service of its role."""
    for each in of_kind("StatefulSet"):
        service = find("Service", each["spec"]["serviceName"])
        assert service["spec"]["clusterIP"] == "None"
        assert matches({"matchLabels": service["spec"]["selector"]}, each["metadata"]["name"])


def test_a_server_that_waits_is_found_and_let_live() -> None:
    """Its health makes it ready or not; clients find it in any case, and no probe ends it."""
    server = container("server", "server")
    assert server["readinessProbe"]["httpGet"] == {"path": "/healthz", "port": "status"}
    assert not server.keys() & {"livenessProbe", "startupProbe"}
    for service in of_kind("Service"):
        if service["metadata"]["labels"][COMPONENT] == "server":
            assert service["spec"]["publishNotReadyAddresses"] is True
    assert find("StatefulSet", "server")["spec"]["podManagementPolicy"] == "Parallel"


# -- identities and settings ------------------------------------------------------------------------------------------


def test_identities_are_those_that_fed_certs_issues(complete: Path) -> None:
    """What Secrets and the ConfigMap of peers are made from is what the command writes, to the last file."""
    issued = {path.relative_to(complete).as_posix() for path in (complete / "certs").rglob("*.pem")}
    secrets, peers = generated("secret"), generated("configMap")["peers"]
    listed = [*secrets["server-identity"], *secrets["client-identities"], *peers]
    assert sorted(listed) == sorted(issued)
    assert {Path(file).name for file in secrets["server-identity"]} == {CA_CERTIFICATE, SERVER_CERTIFICATE, SERVER_KEY}
    names = {f"client_{number}" for number in range(IDENTITIES)}
    assert {Path(file).name for file in peers} == {CA_CERTIFICATE, *map(secagg_public_key, names)}


@pytest.mark.parametrize("ordinal", [0, IDENTITIES - 1])
def test_an_ordinal_is_an_identity(complete: Path, tmp_path: Path, ordinal: int) -> None:
    """The pod's number makes its name; its set-up lays that client's keys and no other's where it looks for them."""
    setup = container("client", "identity")
    index, name = setup["env"]
    assert index["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['apps.kubernetes.io/pod-index']"
    assert setup["env"] == container("client", "client")["env"][:2]
    client = name["value"].replace(f"$({index['name']})", str(ordinal))
    assert client == f"client_{ordinal}"

    places = {}
    for mount in setup["volumeMounts"]:
        place = tmp_path / mount["mountPath"].strip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        places[mount["mountPath"]] = place
        if mount["name"] == "identities":
            key = mount["subPathExpr"].replace("$(CLIENT_NAME)", client)
            shutil.copy(complete / "certs" / "clients" / key, place)
        elif mount["name"] == "peers":
            place.mkdir()
            for file in generated("configMap")["peers"]:
                shutil.copy(complete / file, place)
        else:
            place.mkdir()
    (script,) = setup["args"]
    command = [*setup["command"], re.sub(r"(?<=[\s\"])/", f"{tmp_path}/", script)]
    for _ in range(2):  # a set-up may be run again
        subprocess.run(command, env=os.environ | {"CLIENT_NAME": client}, check=True, timeout=deadline(20))

    laid = places["/fed/certs/clients"]
    assert {path.name.split("-")[0] for path in laid.glob("*.pem") if "PRIVATE" in path.read_text()} == {client}
    assert {path.stat().st_mode & 0o777 for path in laid.iterdir()} == {0o600}
    identity = claim(laid, client)
    identity.lock.close()
    tls.client_context(identity.ca, identity.certificate, identity.key)
    load_keys(laid, client)


def test_nobody_but_the_set_up_mounts_keys_of_clients() -> None:
    """The Secret is mounted by one container, file by file, each for the pod's own name."""
    users = [
        (role, part["name"], mount.get("subPathExpr", ""))
        for role, part in CONTAINERS
        for mount in part["volumeMounts"]
        if mount["name"] == "identities"
    ]
    own = [("client", "identity", f"$(CLIENT_NAME)-{part}.pem") for part in ("cert", "pkey", "secagg")]
    assert users == own


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_is_one_that_is_read(role: str) -> None:
    """What a pod sets is read by the settings, which take it; POD_INDEX alone is there to make a name of."""
    known, _ = known_keys()
    variables = environment(role, role)
    assert variables.keys() - known == ({"POD_INDEX"} if role == "client" else set())
    loaded = settings.load({key: value for key, value in variables.items() if value is not None})
    assert loaded.experiment.name == "experiment.yml"
    assert not loaded.fresh, "a server that dies would begin anew each time"


def test_as_many_clients_as_the_server_waits_for() -> None:
    """Replicas equal CLIENTS; there is an identity, and a deal, for each that may be asked for."""
    assert BASE["replicas"] == [{"name": "client", "count": int(settings_env()["CLIENTS"])}]
    assert "replicas" not in find("StatefulSet", "client")["spec"]
    assert len(generated("secret")["client-identities"]) == 3 * IDENTITIES


def test_paths_are_those_of_the_image() -> None:
    """Files are mounted where the commands look for them, below the image's root of `/fed`."""
    server = {each["mountPath"]: each["name"] for each in container("server", "server")["volumeMounts"]}
    variables = environment("server", "server")
    for key, volume in (("EXPERIMENT", "plan"), ("DENYLIST", "denylist")):
        assert server[f"/fed/{(variables[key] or '').split('/')[0]}"] == volume
    assert generated("configMap")["denylist"] == [DENIED]
    (denylist,) = [each for each in BASE["configMapGenerator"] if each["name"] == "denylist"]
    assert denylist["options"] == {"disableNameSuffixHash": True}
    assert container("server", "server")["command"] == ["sh", "scripts/serve"]
    assert server["/fed/scripts"] == "scripts"
    assert generated("configMap")["scripts"] == ["serve"]


def test_another_try_of_init_is_made_where_it_may_help() -> None:
    """Exit codes of settings, data and conflicts end the Job at once."""
    (rule,) = find("Job", "init")["spec"]["podFailurePolicy"]["rules"]
    codes = [kind.exit_code for kind in (UsageError, DataError, ConflictError)]
    assert rule["onExitCodes"] == {"containerName": "init", "operator": "In", "values": codes}


# -- scripts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("role", "folder"), [("server", "test"), ("client", "shards")])
def test_the_wait_for_the_deal_is_bounded(tmp_path: Path, role: str, folder: str) -> None:
    """It is over when there is a manifest, and fails in time where there is none."""
    wait = container(role, "deal")
    (mount,) = wait["volumeMounts"]
    assert mount["mountPath"] == f"/fed/data/{folder}"
    command: list[str] = [*wait["command"], *wait["args"]]
    assert command[:2] == ["timeout", "600"]

    def run(seconds: str) -> int:
        changed = [command[0], seconds, *command[2:]]
        return subprocess.run(changed, cwd=tmp_path, check=False, timeout=deadline(20)).returncode

    assert run("0.2") == 124
    (tmp_path / "data" / folder).mkdir(parents=True)
    (tmp_path / "data" / folder / MANIFEST).touch()
    assert run("600") == 0


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The server's container with a `fed` that tells that it was called; `tmp_path` is its `/fed`."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "fed").write_text('#!/bin/sh\necho "fed $*"\n')
    (programs / "fed").chmod(0o755)
    process = subprocess.Popen(
        ["sh", FOLDER / "serve"],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def newest(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A newest run of the status that the test asks for, written as a server writes it; its name."""
    folder = RunFolder.create(tmp_path / "results")
    folder.write_summary({"run_id": folder.run_id, "status": request.param, "reason": "", "rounds": 2})
    folder.publish()
    folder.close()
    return folder.run_id


def test_the_first_run_begins(serve: subprocess.Popen[str]) -> None:
    """Where there is no run, the server is started in place of the script."""
    assert serve.communicate(timeout=deadline(20))[0] == "fed server\n"
    assert serve.returncode == 0


@pytest.mark.parametrize("newest", ["running", "stopped"], indirect=True)
def test_an_unfinished_run_goes_on(newest: str, serve: subprocess.Popen[str]) -> None:
    """A run that died or was stopped is gone on with at once."""
    del newest
    assert serve.communicate(timeout=deadline(20))[0] == "fed server\n"


@pytest.mark.parametrize("newest", ["completed", "failed"], indirect=True)
def test_a_run_that_is_over_stays_so(newest: str, tmp_path: Path, serve: subprocess.Popen[str]) -> None:
    """Started again after its run, the container rests, and says how another is begun; that begins it."""
    assert serve.stdout is not None
    assert serve.stdout.readline() == f"run {newest} is over; `rm results/latest` begins another\n"
    with pytest.raises(subprocess.TimeoutExpired):
        serve.wait(3)
    (tmp_path / "results" / "latest").unlink()
    assert serve.stdout.readline() == "fed server\n"
    assert serve.wait(deadline(20)) == 0


@pytest.mark.parametrize("newest", ["completed"], indirect=True)
def test_who_rests_ends_when_told(newest: str, serve: subprocess.Popen[str]) -> None:
    """On SIGTERM the container that rests ends at once and well."""
    assert serve.stdout is not None
    assert newest in serve.stdout.readline()
    serve.terminate()
    assert serve.wait(deadline(20)) == 0


# -- rendered ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rendered(complete: Path) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would send."""
    if shutil.which("kubectl") is None:
        pytest.skip("there is no kubectl here, which renders")
    version = subprocess.run(
        ["kubectl", "version", "--client"], capture_output=True, text=True, check=False, timeout=deadline(60)
    )
    if not re.search(r"Kustomize Version: v([5-9]|\d\d)", version.stdout):
        pytest.skip("this kubectl is too old to render")
    result = subprocess.run(
        ["kubectl", "kustomize", str(complete)], capture_output=True, text=True, check=False, timeout=deadline(60)
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return list(yaml.safe_load_all(result.stdout))


def test_what_is_rendered_keeps_to_the_schemas(rendered: list[dict[str, Any]]) -> None:
    """Every object that would be sent is valid, is in the namespace, and is as many as are written down."""
    for each in rendered:
        kubernetes_validate.validate(each, RELEASE, strict=True)
        assert each["kind"] == "Namespace" or each["metadata"]["namespace"] == BASE["namespace"]
    assert len(rendered) == len(OBJECTS) + len(BASE["configMapGenerator"]) + len(BASE["secretGenerator"])


def test_what_is_rendered_hangs_together(rendered: list[dict[str, Any]]) -> None:
    """Names with digests are those that pods use; images have their tag, the set its replicas, files their content."""
    made = {(each["kind"], each["metadata"]["name"]): each for each in rendered}
    text = yaml.safe_dump(rendered)
    assert set(re.findall(r"\bimage: (\S+)", text)) == {f"{BASE['images'][0]['newName']}:{BASE['images'][0]['newTag']}"}
    for (kind, _), each in list(made.items()):
        if kind not in {"Job", "StatefulSet"}:
            continue
        spec = each["spec"]["template"]["spec"]
        for volume in spec["volumes"]:
            if "secret" in volume:
                assert ("Secret", volume["secret"]["secretName"]) in made
                assert volume["secret"]["defaultMode"] == 0o440
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in made
        for part in spec["containers"]:
            for source in part["envFrom"]:
                assert ("ConfigMap", source["configMapRef"]["name"]) in made
    assert made["StatefulSet", "client"]["spec"]["replicas"] == BASE["replicas"][0]["count"]
    assert DENIED in made["ConfigMap", "denylist"]["data"]
    (shared,) = [each for (kind, name), each in made.items() if kind == "ConfigMap" and name.startswith("settings-")]
    assert shared["data"] == settings_env()
    (keys,) = [each for (kind, name), each in made.items() if kind == "Secret" and name.startswith("client-")]
    assert b"PRIVATE KEY" in base64.b64decode(keys["data"]["client_0-pkey.pem"])
    assert len(keys["data"]) == 3 * IDENTITIES
