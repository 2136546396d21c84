"""Networks by name, their trained weights, and which of their weights are quantized.

    registry     create, check_arch: networks by name, whosever they are
    resnet_cifar, digits_cnn, torchvision_networks, timm_networks, own_network    the networks
    pretrained   resolve_weights: --weights, a file or a name, becomes a file; download: once per node
    weights      load_weights: a file into a network; weight_files reads it
    recognition  which network a file looks like, for messages
    shapes       head_parameters: what depends on the number of classes
    preset       input_preset: the images that trained weights want to see
    selection    param_groups: which weights become powers of two, to how many bits
    used_weights transformed_weights: which of them a forward pass changes before it uses them
    layers       describe: the same as a table

`param_groups` needs torch and safetensors; torchvision and timm are imported when a network of theirs is asked for.
"""
