"""How long os-vif takes to find the representor of each of some functions, as its plug does: prints a list of seconds."""

import json
import sys
import time

from vif_plug_ovs import linux_net


def representor(address):
    number = linux_net.get_vf_num_by_pci_address(address)
    uplink = linux_net.get_ifname_by_pci_address(address, pf_interface=True, switchdev=True)
    return linux_net.get_representor_port(uplink, number)


functions = json.load(sys.stdin)
took = []
# The first time round is not counted.
for turn in range(2):
    took.clear()
    for address, wanted in functions:
        start = time.perf_counter()
        found = representor(address)
        took.append(time.perf_counter() - start)
        assert found == wanted, (address, found, wanted)
print(json.dumps(took))
