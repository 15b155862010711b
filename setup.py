#!/usr/bin/env python
"""Packaging of ape-silverback.

setuptools, not another build back end: Ape finds the configuration hook of a plugin only through a distribution
that has ``top_level.txt``.
"""

from pathlib import Path

from setuptools import find_packages, setup

VERSION = "0.8.0"

# What serves clusters on top of the client: `up`, and bots as processes, which `deploy --watch` restarts.
SERVER = [
    "apprise>=1.9,<3",
    "anyio",
    "cryptography>=42",
    "fastapi>=0.115,<1",
    "jinja2>=3.1,<4",
    "prometheus-client>=0.20,<1",
    "psutil>=5.9,<8",
    "python-multipart>=0.0.20,<1",
    "silverback>=0.7.38,<0.8",
    "starlette",
    "uvicorn>=0.30,<1",
    "watchfiles>=0.21,<2",
]
# What runs bots as containers.
DOCKER = ["docker>=7.1,<8", "requests"]
# What draws charts in the terminal and writes Parquet files, for `bots metrics`.
METRICS = ["plotext>=5.3,<6", "pyarrow>=15,<21"]
# The cluster as tools for language models.
MCP = ["mcp>=2,<3", "uvicorn>=0.30,<1"]
# The real parts that the tests and the demo drive: `ape-foundry` connects a bot's process to anvil, `vyper` compiles
# the validator again, whose code depends on the exact compiler.
TEST = [
    "ape-foundry>=0.8.11,<0.9",
    "hypothesis>=6.100,<7",
    "playwright>=1.40",
    "pytest>=8.0,<9",
    "pytest-xdist>=3.5,<4",
    "setuptools>=75",
    "vyper==0.4.3",
]
# The site of the documentation.
DOCS = ["sphinx-ape>=0.1.2,<0.2"]
LINT = [
    "mypy>=1.11,<3",
    "ruff>=0.8,<1",
    "types-psutil",
    "types-requests",
    "types-PyYAML",
    "types-toml",
]

setup(
    name="ape-silverback",
    version=VERSION,
    description="Deploy Silverback bots from an Ape project",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10,<4",
    packages=find_packages(include=["ape_silverback", "ape_silverback.*"]),
    package_data={
        "ape_silverback": [
            "py.typed",
            "apepay/fixed_rate.*",
            "server/dashboard/static/**",
            "server/dashboard/templates/*",
        ]
    },
    include_package_data=True,
    zip_safe=False,
    # What has no bounds here is pinned by eth-ape.
    install_requires=[
        "eth-ape>=0.8.40,<0.9",
        "apepay>=0.3.9,<0.4",
        "Authlib>=1.9,<2",
        "click",
        "eth-abi",
        "eth-pydantic-types",
        "eth-typing",
        "eth-utils",
        "ethpm-types",
        "evmchains",
        "httpcore>=1,<2",
        "httpx[socks]>=0.27,<1",
        "joserfc>=1.6.8,<2",
        "packaging",
        "pandas",
        "pluggy",
        "pydantic",
        "pydantic-core",
        "pydantic-settings",
        "python-dotenv>=1,<2",
        "PyYAML",
        "rich",
        "ruamel.yaml>=0.18,<1",
        "tomlkit>=0.12,<1",
        'toml; python_version < "3.11"',
        "typing-extensions",
    ],
    extras_require={
        "server": SERVER,
        "local": SERVER,
        "docker": [*SERVER, *DOCKER],
        "swarm": [*SERVER, *DOCKER],
        "metrics": METRICS,
        "mcp": MCP,
        "test": [*SERVER, *DOCKER, *METRICS, *MCP, *TEST],
        "lint": LINT,
        "docs": DOCS,
        "dev": [*SERVER, *DOCKER, *METRICS, *MCP, *TEST, *LINT, *DOCS],
    },
    entry_points={
        "ape_cli_subcommands": ["ape_silverback=ape_silverback.cli:cli"],
        "ape_silverback.runtimes": [
            "process=ape_silverback.server.runtimes.process:ProcessRuntime",
            "docker=ape_silverback.server.runtimes.docker:DockerRuntime",
            "swarm=ape_silverback.server.runtimes.swarm:SwarmRuntime",
        ],
        "pytest11": ["silverback=ape_silverback.pytest_plugin"],
    },
    keywords=["ape", "silverback", "ethereum", "bots", "deploy"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Typing :: Typed",
    ],
)
