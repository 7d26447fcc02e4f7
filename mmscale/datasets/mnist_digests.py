# Copyright (c) mmscale contributors.
"""Digests of the six published MNIST-Scale realizations.

SHA-256 of a split's uint8 pixels, stacked ``(n, 28, 28)`` in the order in which they were drawn,
then of its uint8 labels. The pixels give, written as PNG files, the MD5 that the authors publish
over all files of a realization (https://github.com/ISosnovik/sesn): ``PUBLISHED_PNG_MD5``.
"""

PUBLISHED_DIGESTS = (
    {
        'train': (
            '4b15d4525e2ac25edc8b087ea6f506ff671e6a3cba266abb453ca14e3cd97c8b',
            '01e697f2424d3c557c521fc7b62b502959c11650992ac47da1122aa1d56b222e',
        ),
        'val': (
            'e89202141ee8fb108e7ae0b51816494d4484d4e5281c5a3d5534433ea1d11512',
            'de859e2c14197b39c2db8dd07ffbc89559d24fbd7e615e7826912f8669bb46dc',
        ),
        'test': (
            'dfbba51a9bd1eb0b8dd44c1a95f97a89388afff0df1a4682626ae96e27b064db',
            '6cb3fd114761be264e088e7745869060ed282f8e2ebf290b66d928a3dbb48cb2',
        ),
    },
    {
        'train': (
            'd8740b7ac3c948bc98b8e1d69232e2e6152251bf901504fd6c001d13de6cbfe5',
            '9af5e779547ea6382a9e9b1bae3eb47306d1be6b4b3aa95d6703a76b1be48b8e',
        ),
        'val': (
            'b7e5d295894bfb17cb6389fcefb02024247fe4f5f49ac19fa33ea67431a774bc',
            '57bc9237f2b8cab30ee605c970cb6c50a12bb1e6fc4d303b03d8be154fb48bb3',
        ),
        'test': (
            '62dae2294470b333ca98be9baa5e08beb2d02fbfb2fc7e61ec82b6cc73ec8a99',
            '1cc5fb4de56aa6e450385752f3bfa060bb6dde5b9055205d98007084ba62c347',
        ),
    },
    {
        'train': (
            '5d09da544658ec4df56f92a7744dd599a93e3aeb3b02f559ee336a93fab46d53',
            'd1985872ff6d27060ba9e860be6e7c737aae4df907083ac90822796e7a4ba7db',
        ),
        'val': (
            '6d9f592786da312893e0fccc0aabee0b0dc1309f9096090ce61e6d785ac5d3c8',
            'e033c509df507b5935ccac2a41631561d532e53e9c9705022fcb0c776a4d16b3',
        ),
        'test': (
            '67f3fd8c53ee305803c927c9706dbfb3fef7adc5f53d38090150f4e0080015d1',
            'c702d62d4125f7831bb056f857e63a29aaf6dcc5743fda458a053a8adbe21313',
        ),
    },
    {
        'train': (
            '11ddc1acb13aebf86932cd8a8441a0c5ff5201e147fe924051bb9691b1ff498a',
            'f7bc0f9cc5314e5035268c0e4c2568162a13420b1ffb5f89f4bc2c3a7248caf9',
        ),
        'val': (
            '5f0aecdcf3601a303606ff31ed62f9e0af608e89799f72ce74438ec4a28462a7',
            'c0fcd13322459e9253c00cee652473664df97af359c7433edac7bc3188a274b4',
        ),
        'test': (
            'f77993fa44b1ea59f077f5167c797f4500a2ac8d3236e1c3bce228c236b4e732',
            '089f72a54464edab9634d9787bd2f66b78e15523dc02adfd6d94ab96b3ef0176',
        ),
    },
    {
        'train': (
            'f5556729fe8e89df2029acafcb581609fd7463bebba4dec5164e9413c40673dd',
            '7cecffb47cdcca9f08e0c590d26f713db1996cfeee44b34675cd832d8d59cced',
        ),
        'val': (
            '3cb8270cc5dcc6d9639c03cfdca59270cc9f97144506f13593d55b6ec64b2778',
            '667f0a79418252a4c97810d879e590a8a8802055d8dfb6d10770495b487b8fc5',
        ),
        'test': (
            '89b8de3cb9f642be7afcacd6c3047fc05d2d45efc70ad245a78440cf921f5be4',
            'c1a8125b814ae02cf8c86ab0ab73c5f767db828909cff204f455923016cd6696',
        ),
    },
    {
        'train': (
            'ce62eaf87387173589e99caa5509ca5a38c63848c231490fc021de24e1d96a20',
            '4b2840605eb667619c952c9648a784ab757daa1da8552386ba013032d9aa0234',
        ),
        'val': (
            '78b0855598e6b6073c8674e75d67eefdb11d09fa8ecda65803f22f624949988a',
            '49be93577b58b316ac95d1a48ff8cc0b599ae26277a7463dfe6c9171a8e026e3',
        ),
        'test': (
            '1c30e85a045e2fc3c4a964799332d6eb5f4ae02b664e0f3d2d689037f7ee4a17',
            'f0216824a384f2cf32542a8bf97420ada4344df5358b475d32a905d824f50494',
        ),
    },
)

PUBLISHED_PNG_MD5 = (
    '00f60f1d99234b8fe8e5e1fe79306759',
    'f13da5cde237fb224846b8e0dd8188b2',
    'f06ad4b20d3f7d33f7b417cf7a1eb811',
    'eeb05f67093efae9f9b3f5a5617b2444',
    '5aa583af4e3c08a32f633bcb565823e5',
    '35ec90ad3cd9543123208cbb4a311233',
)
