"""How long os-ken takes to write and to read one flow: prints seconds of each, and the octets it wrote."""

import sys
import time

from os_ken.ofproto import ofproto_v1_4 as ofproto
from os_ken.ofproto import ofproto_v1_4_parser as parser

count = int(sys.argv[1])
body = sys.stdin.buffer.read()


class Datapath:
    ofproto = ofproto
    ofproto_parser = parser


def change():
    match = parser.OFPMatch(in_port=7, eth_src="52:54:00:01:02:03", eth_type=0x0800, ipv4_src="10.1.2.3")
    actions = [parser.OFPActionSetField(eth_dst="52:54:00:0a:0b:0c"), parser.OFPActionOutput(9, 0xFFFF)]
    instructions = [parser.OFPInstructionActions(ofproto.OFPIT_APPLY_ACTIONS, actions)]
    return parser.OFPFlowMod(Datapath, cookie=0x5EED000000000001, table_id=12, priority=100, match=match, instructions=instructions)


def read():
    offset, found = 0, 0
    while offset < len(body):
        stats = parser.OFPFlowStats.parser(body, offset)
        offset += stats.length
        found += 1
    assert found == count, found


def least(runs, work):
    best = float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


message = change()
print(least(2000, message.serialize), least(5, read) / count, message.buf.hex())
