#!/usr/bin/env python3
"""A stand-in for the AWS provider: it has the real one's schemas and does nothing.

Owns: answering Terraform's plugin protocol from schemas.json, so that `validate` checks every
argument and block of the modules, and `mock_provider` in tests has something to mock, where the
real provider cannot be fetched. It never plans, applies or reads anything: those calls fail.
"""
import json
import pathlib
import sys

import tf.provider
from tf.gen import tfplugin_pb2 as pb
from tf.gen import tfplugin_pb2_grpc as rpc
from tf.runner import run_provider

NESTINGS = pb.Schema.NestedBlock.NestingMode


def block(described):
    """A block's schema as a message of the protocol."""
    return pb.Schema.Block(
        attributes=[
            pb.Schema.Attribute(
                name=name,
                type=json.dumps(a["type"]).encode(),
                required=a.get("required", False),
                optional=a.get("optional", False),
                computed=a.get("computed", False),
            )
            for name, a in described["attributes"].items()
        ],
        block_types=[
            pb.Schema.NestedBlock(
                type_name=name,
                block=block(b["block"]),
                nesting=NESTINGS.Value(b["nesting"].upper()),
                min_items=b.get("min_items", 0) if b["nesting"] != "single" else 0,
                max_items=b.get("max_items", 0),
            )
            for name, b in described["blocks"].items()
        ],
    )


class StandIn(rpc.ProviderServicer):
    """Only what `validate` and mocked tests ask."""

    def __init__(self, _provider):
        path = pathlib.Path(__file__).resolve().with_name("schemas.json")
        self.schemas = json.loads(path.read_text())

    def GetMetadata(self, request, context):
        return pb.GetMetadata.Response(
            server_capabilities=pb.ServerCapabilities(plan_destroy=True),
            resources=[
                pb.GetMetadata.ResourceMetadata(type_name=n) for n in self.schemas["resource"]
            ],
            data_sources=[
                pb.GetMetadata.DataSourceMetadata(type_name=n) for n in self.schemas["data"]
            ],
        )

    def GetProviderSchema(self, request, context):
        def schemas(kind):
            return {n: pb.Schema(block=block(s)) for n, s in self.schemas[kind].items()}

        return pb.GetProviderSchema.Response(
            provider=pb.Schema(block=block(self.schemas["provider"])),
            resource_schemas=schemas("resource"),
            data_source_schemas=schemas("data"),
        )

    def ValidateProviderConfig(self, request, context):
        return pb.ValidateProviderConfig.Response()

    def ValidateResourceConfig(self, request, context):
        return pb.ValidateResourceConfig.Response()

    def ValidateDataResourceConfig(self, request, context):
        return pb.ValidateDataResourceConfig.Response()

    def StopProvider(self, request, context):
        return pb.StopProvider.Response()


# The runner brings the handshake and transport; it takes whatever class stands here.
tf.provider.ProviderServicer = StandIn

if __name__ == "__main__":
    run_provider(None, sys.argv)
