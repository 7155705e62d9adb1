"""Whether a hub still has what was published to it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from converters.hub.guard import Publication
from converters.options import PublishOptions


def is_there(publication: Publication, options: PublishOptions) -> bool:
    """Whether the commit of a publication is still in its repository, by one request; in a folder hub, by a look.

    Where the Hub cannot be asked it is taken to be there: nothing would be gained by downloading a model again.
    """
    if options.hub is not None:
        return Path(unquote(urlsplit(publication.url).path)).is_dir()
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    from converters.download.addresses import endpoint
    from converters.download.hub_client import guarded, patience_with
    from converters.download.retry import Pace, Postponed

    api = HfApi(endpoint=endpoint(), token=get_token(), library_name="bit-convert")
    try:
        with guarded(patience_with(Pace(patience=options.patience))):
            api.model_info(publication.repo_id, revision=publication.commit)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        return False
    except Postponed:
        raise
    except Exception:  # whatever the Hub or the network answers instead
        return True
    return True
