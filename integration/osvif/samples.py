"""Sample VIFs, built with os-vif's own classes.

Every function returns os-vif objects; nothing here touches a host. driver.py serializes
them. Names say what is particular about the sample.
"""

from os_vif.objects import fixed_ip, instance_info, network, route, subnet, vif

INSTANCE = "6b0c1c1a-7a52-4b5f-8f0e-3a1d8c6f2b01"
NETWORK = "b82c1929-051e-481d-8110-4669916c7915"
CHANGES = "versioned_object.changes"

# What a deployment of that age would send: os-vif serializes an object graph for an older
# reader when it is given the versions that this reader knows.
MANIFESTS = {
    version: {
        "VIFBase": "1.0", "VIFBridge": "1.0", "VIFDirect": "1.0", "VIFGeneric": "1.0",
        "VIFHostDevice": "1.0", "VIFNestedDPDK": "1.0", "VIFOpenVSwitch": "1.0",
        "VIFVHostUser": vhostuser,
        "VIFPortProfileBase": base, "VIFPortProfileOpenVSwitch": version,
        "VIFPortProfileFPOpenVSwitch": version, "VIFPortProfileOVSRepresentor": version,
        "VIFPortProfileFPBridge": base, "VIFPortProfileFPTap": base,
        "VIFPortProfile8021Qbg": base, "VIFPortProfile8021Qbh": base,
        "VIFPortProfileK8sDPDK": base, "DatapathOffloadRepresentor": "1.0",
        "Network": net, "Subnet": "1.0", "SubnetList": "1.0", "FixedIP": "1.0",
        "FixedIPList": "1.0", "Route": "1.0", "RouteList": "1.0", "InstanceInfo": "1.0",
    }
    for version, base, net, vhostuser in [
        ("1.0", "1.0", "1.0", "1.0"),
        ("1.1", "1.0", "1.1", "1.0"),
        ("1.2", "1.1", "1.1", "1.1"),
        ("1.3", "1.1", "1.1", "1.1"),
        ("1.4", "1.1", "1.1", "1.1"),
    ]
}


def identifier(number):
    # os-vif derives device names from the first eleven characters.
    return f"{0xdc060000 + number:08x}-3c8d-4f44-8fb4-e1d33c160000"


def mac(number):
    return f"22:52:25:62:{number >> 8:02x}:{number & 255:02x}"


def instance(name="vm-1", uuid=INSTANCE):
    return instance_info.InstanceInfo(
        uuid=uuid, name=name, project_id="5c0f9d2f2a9c4f2b8f6f3c5a1c2d3e4f")


def net(bridge="br-int", addresses=("10.0.0.5",), mtu=1450, **more):
    ips = fixed_ip.FixedIPList(objects=[
        fixed_ip.FixedIP(address=address, floating_ips=[]) for address in addresses])
    v4 = subnet.Subnet(
        cidr="10.0.0.0/24", dns=["8.8.8.8"], gateway="10.0.0.1", dhcp_server="10.0.0.2",
        ips=ips, routes=route.RouteList(objects=[
            route.Route(cidr="192.168.0.0/16", gateway="10.0.0.254")]))
    return network.Network(
        id=NETWORK, bridge=bridge, label="private", mtu=mtu, multi_host=False,
        should_provide_bridge=False, should_provide_vlan=False,
        subnets=subnet.SubnetList(objects=[v4]), **more)


def base(number, **more):
    fields = {
        "id": identifier(number), "address": mac(number), "plugin": "ovs", "active": True,
        "preserve_on_delete": False, "has_traffic_filtering": True, "network": net(),
    }
    fields.update(more)
    return fields


def ovs_profile(number, cls=vif.VIFPortProfileOpenVSwitch, **more):
    return cls(interface_id=identifier(number), **more)


def offload(number):
    return vif.DatapathOffloadRepresentor(
        representor_name=f"nic{identifier(number)}"[:14], representor_address="0000:03:00.2")


def openvswitch(number, profile=None, **more):
    name = f"tap{identifier(number)}"[:14]
    fields = base(number, vif_name=name, bridge_name="br-int")
    fields["port_profile"] = profile or ovs_profile(number)
    fields.update(more)
    return vif.VIFOpenVSwitch(**fields)


def vifs():
    """Every VIF type with every port profile that goes with it: {name: object}."""
    every = {}
    n = iter(range(1, 1000))

    def add(name, make):
        every[name] = make(next(n))

    def tap(number):
        return f"tap{identifier(number)}"[:14]

    add("generic", lambda i: vif.VIFGeneric(**base(i, vif_name=tap(i))))
    add("bridge-hybrid", lambda i: vif.VIFBridge(**base(
        i, vif_name=tap(i), bridge_name=f"qbr{identifier(i)}"[:14],
        port_profile=ovs_profile(i, datapath_type="system"))))
    add("bridge-flat", lambda i: vif.VIFBridge(**base(
        i, plugin="linux_bridge", vif_name=tap(i), bridge_name="brq-flat",
        network=net(bridge="brq-flat", bridge_interface="eth1"))))
    add("bridge-vlan", lambda i: vif.VIFBridge(**base(
        i, plugin="linux_bridge", vif_name=tap(i), bridge_name="brq-vlan",
        network=net(bridge="brq-vlan", bridge_interface="eth1", vlan=99))))
    add("openvswitch-multiqueue", lambda i: openvswitch(i, ovs_profile(
        i, profile_id="prof-1", datapath_type="system", datapath_offload=None, create_port=True,
        create_tap=True, multiqueue=True)))
    add("openvswitch", openvswitch)
    add("openvswitch-create-port", lambda i: openvswitch(i, ovs_profile(
        i, profile_id="prof-1", datapath_type="system", create_port=True)))
    add("openvswitch-create-tap", lambda i: openvswitch(i, ovs_profile(
        i, datapath_type="system", create_port=True, create_tap=True)))
    add("openvswitch-datapath-null", lambda i: openvswitch(i, ovs_profile(
        i, datapath_type=None, datapath_offload=None, create_port=True)))
    add("openvswitch-netdev", lambda i: openvswitch(i, ovs_profile(
        i, datapath_type="netdev", create_port=True, create_tap=True)))
    add("openvswitch-no-mtu", lambda i: openvswitch(i, ovs_profile(
        i, datapath_type="system", create_port=True, create_tap=True), network=net(mtu=None)))
    add("openvswitch-trunk", lambda i: openvswitch(i, ovs_profile(
        i, datapath_type="system", create_port=True, create_tap=True),
        bridge_name="tbr-5c0f9d2f-2", network=net(bridge="tbr-5c0f9d2f-2")))
    add("openvswitch-no-address", lambda i: openvswitch(i, address=None, network=None))
    add("openvswitch-no-profile", lambda i: vif.VIFOpenVSwitch(**base(
        i, vif_name=tap(i), bridge_name="br-int")))
    add("openvswitch-inactive", lambda i: openvswitch(i, ovs_profile(
        i, datapath_type="system", create_port=True, create_tap=True), active=False,
        preserve_on_delete=True, has_traffic_filtering=False))
    add("direct", lambda i: vif.VIFDirect(**base(
        i, vif_name=f"mac{identifier(i)}"[:14], dev_address="0000:03:00.2", mode="passthrough",
        vlan_name="vlan99")))
    add("direct-8021qbg", lambda i: vif.VIFDirect(**base(
        i, vif_name=f"mac{identifier(i)}"[:14], dev_address="0000:03:00.2", mode="vepa",
        port_profile=vif.VIFPortProfile8021Qbg(
            manager_id=8, type_id=23, type_id_version=5, instance_id=INSTANCE))))
    add("direct-8021qbh", lambda i: vif.VIFDirect(**base(
        i, vif_name=f"mac{identifier(i)}"[:14], dev_address="0000:03:00.2", mode="bridge",
        port_profile=vif.VIFPortProfile8021Qbh(profile_id="fishfood"))))
    for mode in ("client", "server"):
        add(f"vhostuser-{mode}", lambda i, mode=mode: vif.VIFVHostUser(**base(
            i, vif_name=f"vhu{identifier(i)}"[:14], mode=mode,
            path=f"/var/run/openvswitch/{f'vhu{identifier(i)}'[:14]}",
            port_profile=ovs_profile(i, datapath_type="netdev"))))
    add("vhostuser-fp-openvswitch", lambda i: vif.VIFVHostUser(**base(
        i, plugin="vhostuser_fp", vif_name=tap(i), mode="client", path=f"/tmp/ufp{identifier(i)}",
        port_profile=ovs_profile(
            i, vif.VIFPortProfileFPOpenVSwitch, datapath_type="netdev", bridge_name="br-int",
            hybrid_plug=False))))
    add("vhostuser-fp-openvswitch-hybrid", lambda i: vif.VIFVHostUser(**base(
        i, plugin="vhostuser_fp", vif_name=tap(i), mode="client", path=f"/tmp/ufp{identifier(i)}",
        port_profile=ovs_profile(
            i, vif.VIFPortProfileFPOpenVSwitch, datapath_type="netdev",
            bridge_name=f"qbr{identifier(i)}"[:14], hybrid_plug=True))))
    add("vhostuser-fp-bridge", lambda i: vif.VIFVHostUser(**base(
        i, plugin="vhostuser_fp", vif_name=tap(i), mode="client", path=f"/tmp/ufp{identifier(i)}",
        port_profile=vif.VIFPortProfileFPBridge(bridge_name="brq-fp"))))
    add("vhostuser-fp-tap", lambda i: vif.VIFVHostUser(**base(
        i, plugin="vhostuser_fp", vif_name=tap(i), mode="client", path=f"/tmp/ufp{identifier(i)}",
        port_profile=vif.VIFPortProfileFPTap(mac_address=mac(i)))))
    add("hostdevice-offload", lambda i: vif.VIFHostDevice(**base(
        i, dev_type="ethernet", dev_address="0000:03:00.2",
        port_profile=ovs_profile(i, datapath_type="system", datapath_offload=offload(i)))))
    add("hostdevice-representor", lambda i: vif.VIFHostDevice(**base(
        i, dev_type="ethernet", dev_address="0000:03:00.2",
        port_profile=ovs_profile(
            i, vif.VIFPortProfileOVSRepresentor, datapath_type="system",
            representor_name=f"nic{identifier(i)}"[:14], representor_address="0000:03:00.2"))))
    # What Nova sends for VNIC type direct: the old and the new way of naming the representor.
    add("hostdevice-nova", lambda i: vif.VIFHostDevice(**base(
        i, dev_type="ethernet", dev_address="0000:03:00.2",
        port_profile=ovs_profile(
            i, vif.VIFPortProfileOVSRepresentor, datapath_type=None, datapath_offload=offload(i),
            representor_name=f"nic{identifier(i)}"[:14], representor_address="0000:03:00.2"))))
    add("hostdevice-dpdk", lambda i: vif.VIFHostDevice(**base(
        i, dev_type="ethernet", dev_address="0000:03:00.3",
        port_profile=ovs_profile(i, datapath_type="netdev", datapath_offload=offload(i)))))
    add("hostdevice-legacy", lambda i: vif.VIFHostDevice(**base(
        i, plugin="noop", dev_type="generic", dev_address="0000:03:00.4")))
    add("nested-dpdk", lambda i: vif.VIFNestedDPDK(**base(
        i, plugin="noop", pci_address="0000:00:05.0", dev_driver="uio_pci_generic",
        port_profile=vif.VIFPortProfileK8sDPDK(
            l3_setup=False, selflink="/api/v1/namespaces/default/pods/p-1",
            resourceversion="25"))))
    return every


def examples():
    """The records of `make demo`: {name: (vif, instance)}."""
    number = iter(range(0xd001, 0xd100))
    every = {}

    def guest(name, uuid, address, make):
        i = next(number)
        every[name] = (make(i, net(addresses=(address,))), instance(name.split("-")[0], uuid))

    def port(**profile):
        return lambda i, network: openvswitch(
            i, ovs_profile(i, datapath_type="netdev", **profile), network=network)

    guest("alice-hypervisor-brings-the-device", "0a11ce00-0000-4000-8000-000000000001",
          "10.0.0.11", port(create_port=True))
    guest("bob-hypervisor-brings-the-device", "0b0b0000-0000-4000-8000-000000000002",
          "10.0.0.12", port(create_port=True))
    guest("carol-vifd-makes-tap-and-port", "0ca201c0-0000-4000-8000-000000000003",
          "10.0.0.13", port(create_port=True, create_tap=True))
    guest("dave-multiqueue-tap", "0da0e000-0000-4000-8000-000000000004",
          "10.0.0.14", port(create_port=True, create_tap=True, multiqueue=True))
    guest("erin-floating-tap", "0e210000-0000-4000-8000-000000000005",
          "10.0.0.15", lambda i, network: vif.VIFGeneric(**base(
              i, network=network, vif_name=f"tap{identifier(i)}"[:14])))
    return every


def normal(primitive):
    """os-vif lists an object's changed fields in no particular order; files want one."""
    if isinstance(primitive, dict):
        return {key: sorted(value) if key == CHANGES else normal(value)
                for key, value in primitive.items()}
    if isinstance(primitive, list):
        return [normal(value) for value in primitive]
    return primitive
