"""The typed and the dynamic client, a watch, and an informer's way to resume, each checked by an assertion."""

import threading

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException

config.load_kube_config()
core, apps = client.CoreV1Api(), client.AppsV1Api()
NAMESPACE = "python"


def refused(code, call, *args, **kwargs):
    """The body of an answer with this code."""
    try:
        call(*args, **kwargs)
    except ApiException as error:
        assert error.status == code, error
        return error.body
    raise AssertionError(f"{call} should have been answered with {code}")


def typed():
    core.create_namespace({"metadata": {"name": NAMESPACE}})
    meta = client.V1ObjectMeta(name="settings", labels={"app": "a"})
    core.create_namespaced_config_map(NAMESPACE, client.V1ConfigMap(metadata=meta, data={"k": "1"}))
    assert '"reason":"AlreadyExists"' in refused(
        409, core.create_namespaced_config_map, NAMESPACE, client.V1ConfigMap(metadata=meta)
    )
    # A dictionary goes as a strategic merge patch, a list as a JSON patch.
    patched = core.patch_namespaced_config_map("settings", NAMESPACE, {"data": {"k": None, "l": "2"}})
    assert patched.data == {"l": "2"}, patched.data
    change = [{"op": "replace", "path": "/data/l", "value": "3"}]
    assert core.patch_namespaced_config_map("settings", NAMESPACE, change).data == {"l": "3"}
    found = core.read_namespaced_config_map("settings", NAMESPACE)
    found.data["m"] = "4"
    core.replace_namespaced_config_map("settings", NAMESPACE, found)
    refused(409, core.replace_namespaced_config_map, "settings", NAMESPACE, found)
    selected = core.list_namespaced_config_map(NAMESPACE, label_selector="app=a")
    assert [one.metadata.name for one in selected.items] == ["settings"]
    refused(404, core.read_namespaced_config_map, "nothing", NAMESPACE)
    owners = core.read_namespaced_config_map("settings", NAMESPACE).metadata.managed_fields
    assert all(owner.operation == "Update" for owner in owners), owners


def pages():
    for number in range(5):
        core.create_namespaced_secret(NAMESPACE, {"metadata": {"name": f"s{number}"}})
    names, token = [], None
    while True:
        page = core.list_namespaced_secret(NAMESPACE, limit=2, _continue=token)
        names += [one.metadata.name for one in page.items]
        token = page.metadata._continue
        if not token:
            break
        assert page.metadata.remaining_item_count == 5 - len(names)
    assert names == [f"s{number}" for number in range(5)], names


def watched():
    version = core.list_namespaced_secret(NAMESPACE).metadata.resource_version
    stream = watch.Watch()
    events = stream.stream(
        core.list_namespaced_secret, NAMESPACE, resource_version=version, timeout_seconds=30
    )
    thread = threading.Thread(target=core.delete_namespaced_secret, args=("s0", NAMESPACE))
    thread.start()
    event = next(events)
    assert (event["type"], event["object"].metadata.name) == ("DELETED", "s0"), event
    stream.stop()
    thread.join()


def scaled():
    pod = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": pod}
    apps.create_namespaced_deployment(NAMESPACE, {"metadata": {"name": "web"}, "spec": spec})
    scale = apps.patch_namespaced_deployment_scale("web", NAMESPACE, {"spec": {"replicas": 3}})
    assert scale.spec.replicas == 3 and scale.status.selector == "a=b", scale
    spec["selector"] = {"matchLabels": {"other": "b"}}
    bad = {"metadata": {"name": "bad"}, "spec": spec}
    body = refused(422, apps.create_namespaced_deployment, NAMESPACE, bad)
    assert "spec.template.metadata.labels" in body, body


def applied():
    api = dynamic.DynamicClient(client.ApiClient())
    maps = api.resources.get(api_version="v1", kind="ConfigMap")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"k": "1"}}
    made = maps.server_side_apply(body=body, name="applied", namespace=NAMESPACE, field_manager="one")
    assert made.data["k"] == "1"
    body["data"]["k"] = "2"
    other = {"body": body, "name": "applied", "namespace": NAMESPACE, "field_manager": "two"}
    try:
        maps.server_side_apply(**other)
        raise AssertionError("another manager owns the field")
    except dynamic.exceptions.ConflictError as error:
        assert ".data.k" in error.body, error.body
    assert maps.server_side_apply(force_conflicts=True, **other).data["k"] == "2"
    for kind in ["Deployment", "Lease", "EndpointSlice"]:
        assert api.resources.get(kind=kind).namespaced
    assert [one.metadata.name for one in maps.get(namespace=NAMESPACE, field_selector="metadata.name=applied").items]


def asked():
    review = client.AuthenticationV1Api().create_self_subject_review({})
    assert "system:masters" in review.status.user_info.groups, review
    assert int(client.VersionApi().get_code().minor) >= 36


for step in [typed, pages, watched, scaled, applied, asked]:
    step()
    print(step.__name__, "held")
print("all steps held")
