"""Errors as torch raises them: which say that memory ran out, and which leave a process without its device."""

import pickle

import pytest
import torch

from tuner.training.failures import is_device_broken, is_out_of_memory

MORE = (
    "\nSearch for `cudaErrorIllegalAddress' in https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html "
    "for more information.\nCUDA kernel errors might be asynchronously reported at some other API call."
)


def accelerator_error(words: str, code: int) -> torch.AcceleratorError:
    """As torch makes it from what a call of CUDA returns: its words, and cudaError_t."""
    error = torch.AcceleratorError(f"CUDA error: {words}{MORE}")
    error.error_code = code
    return error


def in_the_end_of_a_capture(error: Exception) -> Exception:
    """An error in a graph's capture, the end of which then fails as well."""
    try:
        try:
            raise error
        finally:
            raise accelerator_error("operation failed due to a previous error during capture", 901)
    except torch.AcceleratorError as last:
        return last


BROKEN = [
    accelerator_error("an illegal memory access was encountered", 700),
    accelerator_error("device-side assert triggered", 710),
    accelerator_error("unspecified launch failure", 719),
    accelerator_error("uncorrectable ECC error encountered", 214),
    torch.AcceleratorError("HIP error: an illegal memory access was encountered"),
    RuntimeError("CUDA driver error: unspecified launch failure"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, opa, opb, m, n, k)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    in_the_end_of_a_capture(ValueError("Cannot copy between CPU and CUDA tensors during a capture")),
]
OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    accelerator_error("out of memory", 2),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB, max allowed: 9.07 GB)."),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    MemoryError(),
]
OTHERS = [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    ValueError("can't allocate memory"),
    ValueError("CUDA error: said by somebody else"),
    OSError("no such data"),
]


@pytest.mark.parametrize("error", BROKEN, ids=str)
def test_an_error_of_the_device_breaks_it_for_its_process(error: Exception) -> None:
    assert (is_device_broken(error), is_out_of_memory(error)) == (True, False)


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=str)
def test_want_of_memory_breaks_nothing(error: Exception) -> None:
    assert (is_device_broken(error), is_out_of_memory(error)) == (False, True)


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_other_errors_are_neither(error: Exception) -> None:
    assert (is_device_broken(error), is_out_of_memory(error)) == (False, False)


def test_want_of_memory_in_a_capture_is_told_though_the_end_of_the_capture_hides_it() -> None:
    error = in_the_end_of_a_capture(torch.OutOfMemoryError("CUDA out of memory"))
    assert (is_device_broken(error), is_out_of_memory(error)) == (True, True)


def test_want_of_memory_is_found_in_the_cause_of_an_error_as_well() -> None:
    error = accelerator_error("operation failed due to a previous error during capture", 901)
    error.__cause__ = torch.OutOfMemoryError("CUDA out of memory")
    error.__cause__.__context__ = error  # a circle ends the search for it, too
    assert is_out_of_memory(error)


def test_torchs_own_refusal_of_too_much_memory_is_want_of_it() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)


def test_an_error_of_the_device_is_known_in_another_process_too() -> None:
    sent = pickle.loads(pickle.dumps(BROKEN[0]))
    assert is_device_broken(sent)
    assert sent.error_code == 700
