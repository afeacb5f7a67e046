"""A convolutional network for digits, trial 1 of study stored.

Needs torch and weights.pt. Run as a script, it names the classes of the images in images.pt: a uint8 tensor of shape
(N, 1, 8, 8), grey.

In names of tensors: N images, K classes, C channels, H height, W width. The comments give each layer's output shape.
"""

import torch
from torch import Tensor, nn

CLASS_NAMES = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
MEAN = [0.3049092096824812]  # of pixel / 255 in the training images, per channel
STD = [0.3755755287003772]


class Network(nn.Module):
    """1x8x8 images to 10 logits; 690 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(-1, 1, 1), persistent=False)
        self.block1 = nn.Sequential(
            nn.Conv2d(1, 4, kernel_size=3, padding=1),  # 4x8x8: 8+2*1-3+1=8
            nn.ReLU(),  # 4x8x8
            nn.MaxPool2d(kernel_size=2, stride=2),  # 4x4x4: (8-2)//2+1=4
            nn.Dropout(0.1),  # 4x4x4
        )
        self.head = nn.Sequential(
            nn.Flatten(),  # 4*4*4=64
            nn.Linear(64, 10),  # 10
        )

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """uint8 images (N, 1, 8, 8) to logits (N, 10)."""
        x = (images_NCHW / 255 - self.mean) / self.std
        x = self.block1(x)
        return self.head(x)


def load(path: str = "weights.pt") -> Network:
    """The network with its trained weights, ready to classify."""
    network = Network()
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.eval()


def classify(network: Network, images_NCHW: Tensor) -> list[str]:
    """The likeliest class of each image."""
    with torch.inference_mode():
        logits_NK = torch.cat([network(batch_NCHW) for batch_NCHW in images_NCHW.split(64)])
    return [CLASS_NAMES[index] for index in logits_NK.argmax(1).tolist()]


if __name__ == "__main__":
    images_NCHW = torch.load("images.pt", weights_only=True)
    for class_name in classify(load(), images_NCHW):
        print(class_name)
