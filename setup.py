"""Packaging. Exact tested versions are in constraints.txt, which scripts/setup.sh installs under."""

from setuptools import find_packages, setup

setup(
    name="smg-sgqn",
    version="0.1.0",
    description="Visual reinforcement learning that generalises: SMG and SGQN on the DMControl "
    "Generalization Benchmark",
    author="The SMG-SGQN developers",
    license="MIT",
    python_requires=">=3.11,<3.13",
    packages=[*find_packages(include=["smg*", "sgqn*", "baselines*", "variants*", "common*"]), "configs"],
    package_data={
        "configs": ["**/*.yaml"],
        "common": ["**/*.yaml", "**/*.npz", "**/*.html", "**/*.css", "**/*.js"],
    },
    install_requires=[
        "av>=18",
        "torch>=2.11",
        "mujoco==3.11.0",
        "dm_control==1.0.44",
        "kornia>=0.8",
        "gymnasium>=1.1",
        "einops>=0.8",
        "captum>=0.8",
        "jinja2>=3.1",
        "matplotlib>=3.10",
        "numpy>=2",
        "pillow>=12",
        "pydantic>=2.10",
        "pyyaml>=6",
        "tqdm>=4.66",
        "wandb>=0.19",
    ],
    extras_require={
        "dev": [
            "hypothesis>=6.100",
            "pyright[nodejs]>=1.1.400",
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "ruff>=0.11",
            "scipy>=1.13",
            "selenium>=4.40",
        ],
        "cluster": ["ray>=2.40"],
    },
    entry_points={"console_scripts": ["smg = common.cli:main"]},
)
