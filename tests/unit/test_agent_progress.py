"""A line that reports progress is told from one that may say why a script gave up."""

from __future__ import annotations

import pytest

from orchestrator.agent.progress import is_progress

PROGRESS = [
    " [2026-11-22 03:21:11] iteration      100/  500000 | consumed samples:        "
    "25600 | elapsed time per iteration (ms): 1234.5 | learning rate: 1.500000E-04 "
    "| global batch size:   256 | lm loss: 2.345678E+00 | loss scale: 1.0 | grad "
    "norm: 1.234 | number of skipped iterations:   0 | number of nan iterations:   "
    "0 |",
    " validation loss at iteration 1000 | lm loss value: 2.345678E+00 | lm loss "
    "PPL: 1.044000E+01 |",
    "{'loss': 2.3, 'grad_norm': 1.2, 'learning_rate': 1e-5, 'epoch': 0.1}",
    "{'loss': '2.3041', 'grad_norm': '1.27', 'learning_rate': '1e-05', 'epoch': '0.1'}",
    "{'eval_loss': 1.9, 'eval_runtime': 3.2, 'eval_samples_per_second': 31.2, "
    "'eval_steps_per_second': 4.1, 'epoch': 1.0}",
    "Epoch 3:  45%|████▌     | 450/1000 [00:10<00:12, 43.21it/s, v_num=0, train_loss=1.23]",
    "Epoch 0: 100%|██████████| 100/100 [00:10<00:00,  9.95it/s, loss=1.23, v_num=3]",
    "Validation DataLoader 0:  10%|█         | 5/50 [00:00<00:03, 13.21it/s]",
    "Training: 1it [00:00,  9.95it/s]",
    "  2%|▏         | 20/1000 [00:10<08:15,  1.98it/s]",
    "Loading checkpoint shards: 100%|██████████| 2/2 [00:10<00:00,  5.1s/it]",
    "Epoch 1/3:  10%|█         | 5/50 [00:00<00:03, 13.21batch/s, loss=0.3]",
    "train: 100%|██████████| 1000/1000 [00:10<00:00, 99.1samples/s]",
    "iter 100: loss 2.3456, time 12.3ms, mfu 30%",
    "iter 100: loss 2.3456, time 12.30ms, mfu 30.12%",
    "step 500: train loss 2.1234, val loss 2.2345",
    "step   10/19073 | loss 6.123456 | lr 1.20e-04 | norm: 1.2345 | dt: 312.11ms | "
    "tok/sec: 167812.33",
    "1|50|Loss: 1.23:  10%|█",
    "1|50|Loss: 1.2345678806304932:  10%|█         | 50/500 [00:41<06:09,  1.22it/s]",
    "[2024-01-02 10:11:12,123] [INFO] [logging.py:96:log_dist] [Rank 0] step=10, "
    "skipped=0, lr=[1e-05, 1e-05], mom=[(0.9, 0.999), (0.9, 0.999)]",
    "steps: 10 loss: 1.2345 iter time (s): 0.512 samples/sec: 10.123",
    "[2024-01-02 10:11:12,123] [INFO] [timer.py:259:stop] "
    "epoch=0/micro_step=10/global_step=10, RunningAvgSamplesPerSec=12.34, "
    "CurrSamplesPerSec=12.1, MemAllocated=1.2GB, MaxMemAllocated=3.4GB",
    "[2024-01-02 10:11:12,123] [INFO] [logging.py:96:log_dist] [Rank 0] time (ms) |"
    " fwd_microstep: 1.23 | bwd_microstep: 2.34 | bwd_inner_microstep: 2.30 | "
    "bwd_allreduce_microstep: 0.01 | step_microstep: 1.2",
    "2024-01-02 10:11:12 | INFO | train_inner | epoch 001:    100 / 10000 "
    "loss=9.876, ppl=939.59, wps=12345.6, ups=1.23, wpb=10000.1, bsz=300.2, "
    "num_updates=100, lr=1.25e-05, gnorm=1.234, train_wall=81, gb_free=12.3, "
    "wall=90",
    "2024-01-02 10:11:12 | INFO | train | epoch 001 | loss 9.1 | nll_loss 8.5 | ppl"
    " 362.1 | wps 12000 | ups 1.2 | wpb 9999.9 | bsz 300 | num_updates 1000 | lr "
    "0.000125 | gnorm 1.2 | train_wall 800 | gb_free 12.3 | wall 900",
    "2024-01-02 10:11:12 | INFO | valid | epoch 001 | valid on 'valid' subset | "
    "loss 8.1 | nll_loss 7.5 | ppl 181 | wps 40000 | wpb 9999 | bsz 300 | "
    "num_updates 1000",
    "[batch=10/1000]:",
    "\t Train loss/train/total: 2.3456",
    "         Train time/batch: 10",
    "train          Epoch   0:   10%|██▌                      | 100/1000 "
    "[00:10<01:30,  9.95ba/s, loss/train/total=2.3456]",
    "{'loss': 1.2345, 'learning_rate': 5e-05, 'epoch': 0.5, 'throughput': 1234.56}",
    "[INFO|2024-01-02 10:11:12] llamafactory.train.callbacks:143 >> {'loss': "
    "1.2345, 'learning_rate': 4.9e-05, 'epoch': 0.50, 'throughput': 1234.56}",
    "[INFO|callbacks.py:310] 2024-01-02 10:11:12,123 >> {'loss': 1.2345, "
    "'learning_rate': 4.9e-05, 'epoch': 0.50}",
    "[2024-01-02 10:11:12][INFO][train.py:88] step: 10 loss: 1.2 memory: "
    "12.3GiB(15%) tps: 1,234 mfu: 12.3%",
    "[titan] 2024-01-02 10:11:12,123 - root - INFO - step: 10  loss:  7.1234  "
    "grad_norm:  1.2345  memory: 12.34GiB(15.43%)  tps: 1,234  tflops: 12.34  mfu: "
    "12.34%",
    "INFO:root:Train Epoch: 1 [ 25600/500000 (5%)] Data (t): 0.123 Batch (t): "
    "0.456, 1234.5/s, 154.3/s/gpu LR: 0.000123 Logit Scale: 14.286 "
    "Contrastive_loss: 5.1234 (5.2345) Loss: 5.1234 (5.2345)",
    "Train Epoch: 1 [6400/60000 (11%)]\tLoss: 0.234567",
    "Train: 0 [ 100/1251 (  8%)]  Loss: 6.94 (6.95)  Time: 0.312s, 820.51/s  "
    "(0.345s, 741.12/s)  LR: 1.000e-05  Data: 0.010 (0.034)",
    "Epoch: [0][ 10/5005]\tTime  0.312 ( 1.234)\tData  0.010 ( 0.890)\tLoss 7.0123e+00"
    " (7.0234e+00)\tAcc@1   0.00 (  0.12)\tAcc@5   0.39 (  0.56)",
    "Epoch: [0]  [  10/1251]  eta: 0:12:34  lr: 0.000100  loss: 6.9123 (6.9234)  "
    "time: 0.6012  data: 0.0002  max mem: 12345",
    "07/12 10:11:12 - mmengine - INFO - Epoch(train)   [1][  50/7330]  lr: "
    "1.9820e-03  eta: 11:12:13  time: 0.4612  data_time: 0.0123  memory: 5432  "
    "loss: 1.2345  loss_cls: 0.5",
    "[01/02 10:11:12 d2.utils.events]:  eta: 1:12:13  iter: 19  total_loss: 5.123  "
    "loss_cls: 4.3  loss_box_reg: 0.01  time: 0.4123  last_time: 0.4  data_time: "
    "0.01  last_data_time: 0.01   lr: 1.9981e-05  max_mem: 5432M",
    "      1/100      2.34G      1.234      2.345      1.234         12        640:"
    "  10%|█         | 10/100 [00:03<00:27,  3.21it/s]",
    "step 19 loss 1.100",
    "2026-11-21 10:00:00 INFO epoch 3 step 19: loss=1.1 lr=3e-4",
    " 40%|████      | 400/1000 [00:10<00:15, 40.1it/s]",
    "INFO:__main__:step 100 loss 3.21",
]
"""Of Megatron, Hugging Face, Lightning, tqdm, nanoGPT, torchtune, DeepSpeed, fairseq, Composer,
LLaMA-Factory, torchtitan, OpenCLIP, timm, PyTorch's examples, mmengine, detectron2, YOLO."""
REASONS = [
    "ValueError: loss is nan at step 100",
    "assert loss < 10",
    "AssertionError: loss 12.3 at step 100",
    "AssertionError: assert loss < 10",
    "RuntimeError: loss 12.3 > 10 at step 4",
    "error at step 4",
    "Loss is nan, stopping training at step 100",
    "giving up: no shard 4",
    "step 100: loss is nan",
    "step 100: loss nan",
    "iteration 100: found NaN in local grad norm",
    "no more batches at step 12",
    "batch 7 has 3 labels, expected 4",
    "epoch 3: validation set is empty",
    "step 12: cannot read shard 00012.tar",
    "loss 12.5 is larger than 10.0",
    "iteration 100 | lm loss: nan |",
    "rank 3: step 100 timed out",
    "StopIteration",
    "KeyError: 'loss'",
    "KeyError: 10",
    "IndexError: batch 4",
    "usage: train.py [-h] --steps 100",
    "Loss scale has reached its minimum 1.0 at step 100",
    "Loss diverged",
    "loss exploded: 1e30",
    "bad batch 17",
    "skipping batch 17: corrupt record",
    "expected loss < 10, got 12.3",
    "loss=12.3 too high",
    "unexpected step 12",
    "DataLoader worker (pid 1234) is dead at step 4",
    "lr 0.1 must be below 0.01",
    "learning rate 1e-3 out of range at step 10",
    "iteration 100/500000: lost connection to server 3",
    "CUDA out of memory at step 100",
    "batch 12: unknown token id 50258",
    "Exception: step 12",
    "assert step == 10",
    "wrong batch size 3",
    "batch size 256 not divisible by 3",
    "global batch size: 256 micro batch size: 3",
    "step 5: missing key 4",
    "mismatch at step 5: 3 != 4",
    "iteration 100/ 500 | lm loss: 2.3 | grad norm: 1.2 | lost connection to server 3",
    "epoch: 3 | loss: 2.31 | too many bad steps: 4 | giving up",
    "INFO step 4: reading shard 3 failed",
    "val_error: 0.3 at step 4, aborting",
]


@pytest.mark.parametrize("line", PROGRESS)
def test_what_trainers_print_of_their_steps_is_progress(line: str) -> None:
    assert is_progress(line)


@pytest.mark.parametrize("line", REASONS)
def test_a_reason_that_names_a_step_or_a_loss_is_none(line: str) -> None:
    assert not is_progress(line)
