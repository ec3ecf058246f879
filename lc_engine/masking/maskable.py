"""Which parameters of a model are matrices, and which of them can be masked.

A matrix is what multiplies an input in one product: the weight of a linear layer or convolution, of
an input projection of attention, or of one expert in a fused mixture of experts, whose parameter
(E, …) holds E matrices (of `gate_up_proj` gate and up together, as one product takes both).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from lc_engine.masking.weight_in_use import computes_weight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

# Attention keeps the weights of its input projections itself, not in a Linear module.
_ATTENTION_WEIGHTS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")

# Layers of timm and transformers that compute the weight in use from their parameter.
_COMPUTING_LAYERS = frozenset(
    {
        "StdConv2d",
        "StdConv2dSame",
        "ScaledStdConv2d",
        "ScaledStdConv2dSame",
        "WeightStandardizedConv2d",
        "AutoBitLinear",
    }
)

# Parameters of two and more dimensions that are no matrices, by a part of their name.
_BESIDES = ("bias", "norm", "scale")
# Of lazy modules that have not seen an input.
_WITHOUT_SHAPE = (nn.parameter.UninitializedParameter, nn.parameter.UninitializedBuffer)
_SLICE = re.compile(r"(.*)\[(\d+)\]")


def weight_names(module: nn.Module) -> list[str]:
    """Return the names of a module's attributes that hold matrices to mask."""
    if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
        return ["weight"]
    if _is_transposed_linear(module):
        return ["weight"]
    if isinstance(module, nn.MultiheadAttention):
        return [name for name in _ATTENTION_WEIGHTS if getattr(module, name) is not None]
    if _is_experts(module):
        return [
            name
            for name, parameter in module._parameters.items()
            if parameter is not None
            and parameter.dim() > 1
            and not any(part in name for part in _BESIDES)
        ]
    return []


def matrices(prefix: str, module: nn.Module, attribute: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the matrices of an attribute that `weight_names` names, each by its name.

    Experts yield a view per expert, "mlp.experts.down_proj[3]", which writes to the parameter.

    Raises:
        ValueError: the parameter cannot be masked; the text names it.
    """
    name = f"{prefix}.{attribute}" if prefix else attribute
    parameter = _checked_parameter(name, module, attribute)
    if not _is_experts(module):
        yield name, parameter
        return
    # `.data` has no version counter: masks are undone, and are no change of the model.
    for expert, weight in enumerate(parameter.data):
        yield f"{name}[{expert}]", weight


def matrix_at(model: nn.Module, name: str) -> Tensor:
    """Return the parameter of a model, or the expert's view of one, that `matrices` named."""
    found = _SLICE.fullmatch(name)
    if found is None:
        return model.get_parameter(name)
    return model.get_parameter(found[1]).data[int(found[2])]


def entry_of(tensors: Mapping[str, Tensor], name: str) -> Tensor | None:
    """Return the tensor of a matrix by its name: of an expert also a slice of its parameter's."""
    found = _SLICE.fullmatch(name)
    if name in tensors or found is None:
        return tensors.get(name)
    whole, expert = tensors.get(found[1]), int(found[2])
    return None if whole is None or not whole.dim() or expert >= len(whole) else whole[expert]


def is_in_head(name: str, head: str | None) -> bool:
    """Return whether a module is the classifier or inside it."""
    return head is not None and (head == "" or name == head or name.startswith(head + "."))


class MatrixCount(NamedTuple):
    """How many weights the matrices of a model have.

    Attributes:
        total: of all matrices, embeddings left out.
        maskable: of those that can be masked.
        largest: the largest parameter that cannot be: its name, the class of its module, its dtype.
    """

    total: int
    maskable: int
    largest: tuple[str, str, str] | None


def count_matrices(model: nn.Module, counts: Callable[[str], bool]) -> MatrixCount:
    """Count the weights of a model's matrices; one that modules share counts once.

    Args:
        model: any module.
        counts: whether a module counts, by its name.
    """
    seen: set[int] = set()
    total = maskable = most = 0
    largest: tuple[str, str, str] | None = None
    for prefix, module in model.named_modules():
        if not counts(prefix):
            continue
        for attribute, parameter in module._parameters.items():
            if parameter is None or not _is_matrix(module, attribute, parameter):
                continue
            if parameter.data_ptr() in seen:
                continue
            seen.add(parameter.data_ptr())
            total += parameter.numel()
            if _can_be_masked(module, attribute):
                maskable += parameter.numel()
            elif parameter.numel() > most:
                most = parameter.numel()
                name = f"{prefix}.{attribute}" if prefix else attribute
                dtype = str(parameter.dtype).removeprefix("torch.")
                largest = (name, type(module).__name__, dtype)
    return MatrixCount(total, maskable, largest)


def refuse_quantized(name: str, module: nn.Module) -> None:
    """Refuse a quantized module of torch, which cannot be recognized by its weight.

    Raises:
        ValueError: saying what to do.
    """
    if ".quantized" in type(module).__module__:
        raise ValueError(
            f'module "{name}" is quantized ({type(module).__name__}): masks need floating-point '
            "weights; score the model before it is quantized"
        )


def refuse_packed(name: str, module: nn.Module) -> None:
    """Refuse a module whose weights are packed, or stored in 8 bits beside their scales.

    Raises:
        ValueError: saying what to do.
    """
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) or "Embedding" in type(module).__name__:
        return
    for key, tensor in [*module._parameters.items(), *module._buffers.items()]:
        if tensor is None or "weight" not in key or isinstance(tensor, _WITHOUT_SHAPE):
            continue
        if tensor.dim() < 2:
            continue
        if not tensor.is_floating_point() or tensor.element_size() < 2:
            raise ValueError(
                f'weight "{name}.{key}" is packed ({str(tensor.dtype).removeprefix("torch.")} in a '
                f"{type(module).__name__}), and what it holds is not its magnitude: give the "
                "folder or file of the model, which is then loaded in float, or load it with "
                "dequantize=True in its quantization_config"
            )


def refuse_adapter(name: str, module: nn.Module) -> None:
    """Refuse a module of `peft`, whose matrices would be masked apart from the weight they change.

    Raises:
        ValueError: saying what to do.
    """
    if any(base.__module__.partition(".")[0] == "peft" for base in type(module).__mro__):
        raise ValueError(
            f'module "{name}" is an adapter of peft ({type(module).__name__}), which would be '
            "masked apart from the weights that it changes: pass model.merge_and_unload(), or "
            "save the adapter and give its folder"
        )


def refuse_tied(model: nn.Module, masked: Mapping[int, str], owners: set[int]) -> None:
    """Refuse a masked weight whose memory is also a parameter that must stay as it is.

    Args:
        model: any module.
        masked: names of the masked weights by address.
        owners: ids of the modules that they are of.

    Raises:
        ValueError: naming both.
    """
    for name, module in model.named_modules():
        if id(module) in owners:
            continue
        for attribute, parameter in module._parameters.items():
            if parameter is None or not parameter.numel() or parameter.data_ptr() not in masked:
                continue
            raise ValueError(
                f'weight "{masked[parameter.data_ptr()]}" is tied to "{name}.{attribute}", which '
                "is not masked: untie them (clone one), or choose other weights with "
                "Masking(weights=function)"
            )


def _is_transposed_linear(module: nn.Module) -> bool:
    """Return whether a module is GPT-2's `Conv1D`: a linear layer whose weight is (in, out)."""
    weight = module._parameters.get("weight")
    named = any(base.__name__ == "Conv1D" for base in type(module).__mro__)
    return (
        named
        and weight is not None
        and weight.dim() == 2
        and weight.shape[1] == getattr(module, "nf", None)
    )


def _is_experts(module: nn.Module) -> bool:
    """Return whether a module holds the weights of several experts in its own parameters."""
    name = type(module).__name__
    return "Expert" in name and "Router" not in name and not isinstance(module, nn.Linear)


def _is_matrix(module: nn.Module, attribute: str, parameter: Tensor) -> bool:
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) or "Norm" in type(module).__name__:
        return False
    if isinstance(parameter, nn.parameter.UninitializedParameter):
        return False
    if any(part in attribute for part in _BESIDES):
        return False
    wide = [size for size in parameter.shape if size > 1]
    # (1, T, D) is added to a batch: an embedding of positions, a class token.
    return len(wide) > 1 and not (parameter.dim() == 3 and parameter.shape[0] == 1)


def _can_be_masked(module: nn.Module, attribute: str) -> bool:
    if ".quantized" in type(module).__module__ or attribute not in weight_names(module):
        return False
    try:
        _checked_parameter(attribute, module, attribute)
    except ValueError:
        return False
    return True


def _checked_parameter(name: str, module: nn.Module, attribute: str) -> nn.Parameter:
    parameter = module._parameters.get(attribute)
    if parameter is None:
        raise ValueError(
            f'weight "{name}" is computed at every forward (a parametrisation, weight_norm or '
            "torch.nn.utils.prune): make it permanent first, for instance with "
            "torch.nn.utils.parametrize.remove_parametrizations or torch.nn.utils.prune.remove"
        )
    if any(base.__name__ in _COMPUTING_LAYERS for base in type(module).__mro__):
        raise _computed_in_forward(name, module)
    if isinstance(parameter, nn.parameter.UninitializedParameter):
        raise ValueError(
            f'weight "{name}" has no shape yet (a lazy module): run the model on one batch first'
        )
    if parameter.is_meta:
        raise ValueError(
            f'weight "{name}" is on the meta device and has no values: load them first'
        )
    if type(parameter) is not nn.Parameter or not parameter.is_floating_point():
        raise ValueError(
            f'weight "{name}" is a {type(parameter).__name__} of {parameter.dtype}: masks need '
            "plain floating-point weights; score the model before it is quantized or sharded"
        )
    if parameter.itemsize == 1:
        raise ValueError(
            f'weight "{name}" of {type(module).__name__} is {parameter.dtype}, whose scales are '
            "kept elsewhere: load the model dequantized, in bfloat16"
        )
    if parameter.is_inference():
        raise ValueError(
            f'weight "{name}" was made under torch.inference_mode() and cannot be masked in '
            "place: build the model outside of it"
        )
    if _is_experts(module):
        _check_experts(name, module, parameter)
    elif isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)) and computes_weight(module):
        raise _computed_in_forward(name, module)
    return parameter


def _computed_in_forward(name: str, module: nn.Module) -> ValueError:
    return ValueError(
        f'weight "{name}" is standardized or quantized at every forward '
        f"({type(module).__name__}), so a mask would not reach the weight in use: replace the "
        "layer by a plain nn.Conv2d or nn.Linear that holds the weight in use"
    )


def _check_experts(name: str, module: nn.Module, parameter: Tensor) -> None:
    """Refuse a form of experts whose matrices are not the slices of one parameter."""
    experts = getattr(module, "num_experts", None)
    first = parameter.shape[0]
    if parameter.dim() != 3 or (isinstance(experts, int) and experts != first):
        raise ValueError(
            f'weight "{name}" holds experts of {type(module).__name__} as '
            f"{tuple(parameter.shape)}: only parameters (experts, rows, columns) are known; leave "
            "it out with Masking(weights=function)"
        )
