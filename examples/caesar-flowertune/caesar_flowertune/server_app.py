"""What the server does."""

import torch
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr_caesar.clients.torch_records import record_to_state, state_to_record
from flwr_caesar.strategies import Caesar
from peft import get_peft_model_state_dict, set_peft_model_state_dict

from caesar_flowertune.data import test_windows
from caesar_flowertune.model import load

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train for some rounds, and say what it cost."""
    config = context.run_config
    model, tokenizer = load(str(config["base-model"]), int(config["rank"]))
    x = test_windows(tokenizer)

    @torch.no_grad()
    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        state = record_to_state(arrays)
        set_peft_model_state_dict(model, state)
        model.eval()
        output = model(input_ids=x, labels=x)
        right = output.logits[:, :-1].argmax(-1) == x[:, 1:]
        return MetricRecord(
            {"loss": float(output.loss), "accuracy": float(right.float().mean())}
        )

    inner = FedAvg(
        fraction_train=float(config["fraction-train"]), fraction_evaluate=0.0
    )
    # All there is of compression on the server: around any strategy.
    strategy = Caesar(inner)
    strategy.start(
        grid=grid,
        initial_arrays=state_to_record(get_peft_model_state_dict(model)),
        num_rounds=int(config["num-server-rounds"]),
        evaluate_fn=evaluate,
    )
    print(strategy.report())
