"""The step of partly frozen weights as one loop over memory, which LLVM makes for the processor at hand.

llvmlite brings LLVM as a library (`pip install 'inq-ray[fast]'`): no compiler is needed, nothing is written to disk,
and a loop is ready in some 20 ms after 0.2 s for the library. Only :mod:`inq_ray.core.one_pass` uses it.
"""

from collections.abc import Callable
from string import Template
from typing import Any, NamedTuple

Loop = Callable[[int, int, int, int, int, float, float, float, float], None]
"""Addresses of params, grads, lives, momenta; their number; lr, weight decay, momentum, 1 - dampening."""


class Form(NamedTuple):
    """What a loop is made for; the rest it is told at each call."""

    maximize: bool
    has_decay: bool
    has_momentum: bool
    is_first_step: bool
    nesterov: bool


class StepKernel(NamedTuple):
    """A loop, with the memory that its code stands in."""

    loop: Loop
    engine: Any


# Every sum of a product is rounded once (fma), where torch's own kernels do so on processors that can. LLVM makes no
# other such sums by itself. Of the conditions that are constants nothing is left in the code.
_SOURCE = Template("""
declare float @llvm.fma.f32(float, float, float)

define void @step(ptr noalias %params, ptr noalias readonly %grads, ptr noalias readonly %lives, ptr noalias %momenta,
                  i64 %count, float %lr, float %weight_decay, float %momentum, float %undamped) {
start:
  %minus_lr = fneg float %lr
  %is_any = icmp sgt i64 %count, 0
  br i1 %is_any, label %element, label %end

element:
  %i = phi i64 [0, %start], [%next, %update]
  %param_at = getelementptr inbounds float, ptr %params, i64 %i
  %grad_at = getelementptr inbounds float, ptr %grads, i64 %i
  %live_at = getelementptr inbounds i8, ptr %lives, i64 %i
  %param = load float, ptr %param_at, align 4
  %grad = load float, ptr %grad_at, align 4
  %live = load i8, ptr %live_at, align 1

  %minus_grad = fneg float %grad
  %downhill = select i1 $maximize, float %minus_grad, float %grad
  %decaying = call float @llvm.fma.f32(float %param, float %weight_decay, float %downhill)
  %decayed = select i1 $has_decay, float %decaying, float %downhill
  %is_live = icmp ne i8 %live, 0
  %live_grad = select i1 %is_live, float %decayed, float 0.0
  br i1 $has_momentum, label %momentum_step, label %update

momentum_step:
  %buffer_at = getelementptr inbounds float, ptr %momenta, i64 %i
  %buffer = load float, ptr %buffer_at, align 4
  %slowed = fmul float %buffer, %momentum
  %moved = call float @llvm.fma.f32(float %live_grad, float %undamped, float %slowed)
  %velocity = select i1 $is_first_step, float %live_grad, float %moved
  store float %velocity, ptr %buffer_at, align 4
  %ahead = call float @llvm.fma.f32(float %velocity, float %momentum, float %live_grad)
  %direction = select i1 $nesterov, float %ahead, float %velocity
  br label %update

update:
  %way = phi float [%live_grad, %element], [%direction, %momentum_step]
  %updated = call float @llvm.fma.f32(float %way, float %minus_lr, float %param)
  store float %updated, ptr %param_at, align 4
  %next = add nuw nsw i64 %i, 1
  %is_more = icmp slt i64 %next, %count
  br i1 %is_more, label %element, label %end

end:
  ret void
}
""")


def source(form: Form) -> str:
    """The loop in LLVM's language."""
    return _SOURCE.substitute({name: str(is_so).lower() for name, is_so in form._asdict().items()})


def make_kernel(form: Form) -> StepKernel:
    """Makes the loop for the processor at hand.

    The tensors must not overlap; calls let other Python threads run.

    Raises:
        ImportError: llvmlite is not installed.
        AttributeError, OSError, RuntimeError: it is too old, or does not work here.
    """
    from ctypes import CFUNCTYPE, c_float, c_int64, c_void_p

    from llvmlite import binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    processor = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
    )
    module = llvm.parse_assembly(source(form))
    module.verify()
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    tuning.loop_vectorization = tuning.loop_unrolling = True
    passes = llvm.create_pass_builder(processor, tuning)
    passes.getModulePassManager().run(module, passes)
    engine = llvm.create_mcjit_compiler(module, processor)
    engine.finalize_object()
    loop = CFUNCTYPE(None, *[c_void_p] * 4, c_int64, *[c_float] * 4)(engine.get_function_address("step"))
    return StepKernel(loop, engine)
