"""The real os-vif, driven over pipes by the tests.

    driver.py serve --ovsdb unix:PATH [--isolate] [--per-port-bridge] [--mtu N] [--qos TYPE]
        Reads one request per line from stdin, {"op": "plug"|"unplug", "vif": …, "instance": …}
        with both objects as os-vif primitives, and answers each with one line:
        {"ok": true} or {"ok": false, "error": "…"}.

    driver.py serve-linux-bridge --locks DIRECTORY [--flat-interface NAME] [--vlan-interface NAME] [--mtu N]
        The same for the linux_bridge plugin, which os-vif 4.3.1 was the last to have: run it with
        that in PYTHONPATH. Its iptables-save and iptables-restore are those of PATH.

    driver.py samples DIRECTORY
        Writes every sample of samples.py as DIRECTORY/NAME.json: a record {vif, instance} with
        the objects serialized as os-vif does it. NAME@V.json is the same for a reader that
        knows the port profile's version V; one sample of each pair of types has these.

    driver.py examples DIRECTORY
        Writes the records that `make demo` feeds to vifd.

    driver.py objects FILE
        Writes what os-vif says of its classes: each one's version, and of each field its type,
        whether it may be null, and which version it came with.

Run it in the network namespace whose links os-vif shall change.
"""

import argparse
import json
import logging
import pathlib
import sys

import os_vif
from os_vif import objects
from oslo_config import cfg
from oslo_versionedobjects.base import VersionedObjectRegistry as registry
from oslo_versionedobjects.fields import ObjectField

import samples


def serve_ovs(options):
    from vif_plug_ovs import ovs, privsep

    # os-vif would start a privileged helper daemon; the driver already runs as root, in the
    # right namespace, so the privileged functions are called in this process.
    privsep.vif_plug.set_client_mode(False)
    group = "os_vif_ovs"
    cfg.CONF([], project="os-vif-driver", default_config_files=[])
    # The plugin reads its settings when it is loaded, so they are known before that.
    cfg.CONF.register_opts(ovs.OvsPlugin.CONFIG_OPTS, group=group)
    cfg.CONF.set_override("ovsdb_connection", options.ovsdb, group=group)
    cfg.CONF.set_override("isolate_vif", options.isolate, group=group)
    cfg.CONF.set_override("per_port_bridge", options.per_port_bridge, group=group)
    cfg.CONF.set_override("network_device_mtu", options.mtu, group=group)
    cfg.CONF.set_override("default_qos_type", options.qos, group=group)
    cfg.CONF.set_override("ovs_vsctl_timeout", 30, group=group)
    serve()


def serve_linux_bridge(options):
    from oslo_concurrency import lockutils
    from vif_plug_linux_bridge import linux_bridge, privsep

    privsep.vif_plug.set_client_mode(False)
    group = "os_vif_linux_bridge"
    cfg.CONF([], project="os-vif-driver", default_config_files=[])
    # It takes locks between processes whenever it touches a link.
    lockutils.set_defaults(options.locks)
    cfg.CONF.register_opts(linux_bridge.LinuxBridgePlugin.CONFIG_OPTS, group=group)
    cfg.CONF.set_override("flat_interface", options.flat_interface, group=group)
    cfg.CONF.set_override("vlan_interface", options.vlan_interface, group=group)
    cfg.CONF.set_override("network_device_mtu", options.mtu, group=group)
    serve()


def load(primitive):
    return objects.base.VersionedObject.obj_from_primitive(primitive)


def serve():
    os_vif.initialize()
    operations = {"plug": os_vif.plug, "unplug": os_vif.unplug}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            operations[request["op"]](load(request["vif"]), load(request["instance"]))
            answer = {"ok": True}
        except Exception as error:  # every failure is an answer; the test judges it
            answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


def record(vif, instance, version=None):
    if version is None:
        primitives = vif.obj_to_primitive(), instance.obj_to_primitive()
    else:
        manifest = dict(samples.MANIFESTS[version])
        if "port_profile" in vif:
            # A field of a base class is looked up under the name of that base class.
            manifest["VIFPortProfileBase"] = manifest[vif.port_profile.obj_name()]
        primitives = (
            vif.obj_to_primitive(manifest[vif.obj_name()], manifest),
            instance.obj_to_primitive("1.0", manifest))
    return {"vif": samples.normal(primitives[0]), "instance": samples.normal(primitives[1])}


def write(directory, name, content):
    write_file(pathlib.Path(directory) / f"{name}.json", content)


def write_file(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def write_samples(options):
    aged = set()
    for name, vif in samples.vifs().items():
        write(options.directory, name, record(vif, samples.instance()))
        profile = vif.port_profile.obj_name() if "port_profile" in vif else None
        if (vif.obj_name(), profile) in aged:
            continue
        aged.add((vif.obj_name(), profile))
        previous = None
        for version in samples.MANIFESTS:
            older = record(vif, samples.instance(), version)
            if older != previous:
                write(options.directory, f"{name}@{version}", older)
            previous = older


def write_examples(options):
    for name, (vif, instance) in samples.examples().items():
        write(options.directory, name, record(vif, instance))


def since(cls, field, minors):
    """The first minor version of which os-vif sends the field."""
    # Of the fields that are objects, one alone came later than its class. os-vif cannot make the
    # others compatible without being told the versions of everything.
    late = "datapath_offload"
    if isinstance(cls.fields[field], ObjectField) and field != late:
        return 0
    for minor in range(minors + 1):
        whole = cls()
        vars(whole).pop("_obj_subnets", None)
        primitive = {field: None}
        if field == late:
            whole.datapath_offload = objects.vif.DatapathOffloadRepresentor()
            primitive = {field: whole.datapath_offload.obj_to_primitive()}
        whole.obj_make_compatible(primitive, f"1.{minor}")
        if field in primitive:
            return minor
    raise ValueError(f"{cls.__name__}.{field} is in no version")


def write_objects(options):
    classes = objects.base.VersionedObject  # registered by now, with all of its subclasses
    every = {}
    for name, versions in registry.obj_classes().items():
        cls = versions[0]
        if not issubclass(cls, classes):
            continue
        minors = int(cls.VERSION.split(".")[1])
        every[name] = {
            "version": cls.VERSION,
            "fields": {
                field: {
                    "type": type(kind).__name__,
                    "nullable": kind.nullable,
                    "since": since(cls, field, minors),
                }
                for field, kind in cls.fields.items()
            },
        }
    write_file(pathlib.Path(options.file), every)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("serve")
    command.add_argument("--ovsdb", required=True)
    command.add_argument("--isolate", action="store_true")
    command.add_argument("--per-port-bridge", action="store_true")
    command.add_argument("--mtu", type=int, default=1500)
    command.add_argument("--qos", default="linux-noop")
    command.set_defaults(run=serve_ovs)
    command = commands.add_parser("serve-linux-bridge")
    command.add_argument("--locks", required=True)
    command.add_argument("--flat-interface")
    command.add_argument("--vlan-interface")
    command.add_argument("--mtu", type=int, default=1500)
    command.set_defaults(run=serve_linux_bridge)
    for name, run in (("samples", write_samples), ("examples", write_examples)):
        command = commands.add_parser(name)
        command.add_argument("directory")
        command.set_defaults(run=run)
    command = commands.add_parser("objects")
    command.add_argument("file")
    command.set_defaults(run=write_objects)
    options = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL, stream=sys.stderr)
    objects.register_all()
    options.run(options)


if __name__ == "__main__":
    main()
