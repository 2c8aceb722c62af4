"""A proxy that puts a key into the requests of programs that have none.

    OPENAI_API_KEY=... python credentials.py
    OPENAI_API_KEY=sk-placeholder-of-openai HTTPS_PROXY=http://127.0.0.1:8080 some-program

The program sends its placeholder. Only api.openai.com gets the key, and only over verified TLS.
"""

from soth_mitm import Credential, MitmConfig, MitmProxyBuilder

config = MitmConfig()
config.interception.destinations.append("api.openai.com:443")
config.credentials.append(Credential("sk-placeholder-of-openai", "env:OPENAI_API_KEY", ["api.openai.com:443"]))

if __name__ == "__main__":
    MitmProxyBuilder(config).build().run_forever(lambda handle: print(f"listening on port {handle.port}"))
