from . import (
    account as account,
    circuits as circuits,
    graph as graph,
    lenses as lenses,
    neurons as neurons,
    patching as patching,
    regions as regions,
    specification as specification,
    transcoders as transcoders,
)
