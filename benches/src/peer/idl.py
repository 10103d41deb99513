"""How long python-ovs takes until its Idl holds the database: prints seconds."""

import json
import sys
import time

import ovs.db.idl
import ovs.poller
from ovs.db import schema
from ovs.stream import Stream

endpoint, tables = sys.argv[1], json.loads(sys.argv[2])


def call(method, params):
    from ovs import jsonrpc

    error, stream = Stream.open_block(Stream.open(endpoint))
    assert not error, error
    connection = jsonrpc.Connection(stream)
    error, reply = connection.transact_block(jsonrpc.Message.create_request(method, params))
    assert not error, error
    connection.close()
    return reply.result


helper = ovs.db.idl.SchemaHelper(schema_json=call("get_schema", ["Open_vSwitch"]))
known = schema.DbSchema.from_json(call("get_schema", ["Open_vSwitch"]))
for table, columns in tables.items():
    helper.register_columns(table, [name for name in columns if name in known.tables[table].columns])

start = time.monotonic()
idl = ovs.db.idl.Idl(endpoint, helper)
before = idl.change_seqno
while idl.change_seqno == before:
    if not idl.run():
        poller = ovs.poller.Poller()
        idl.wait(poller)
        poller.block()
print(time.monotonic() - start)
