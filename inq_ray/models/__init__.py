"""Networks by name, their trained weights, and which of their weights are quantized.

    registry     create, check_arch: networks by name, from all sources
    resnet_cifar, digits_cnn, torchvision_networks, timm_networks, own_network    the networks
    pretrained   resolve_weights: --weights, a file or a name, to a file; download: once per node
    weights      load_weights: a file into a network; weight_files reads it
    recognition  which network a file's tensors look like, for messages
    shapes       head_parameters: what depends on the number of classes
    eval_transform  preprocessing that trained weights expect
    layer_weights    the weights of a network's layers, and all others
    selection    param_groups: which weights are quantized, to how many bits
    used_weights transformed_weights: which weights a forward pass changes before it uses them
    layers       describe: the same as a table

`param_groups` needs torch and safetensors only; torchvision and timm are imported when one of their networks is used.
"""
