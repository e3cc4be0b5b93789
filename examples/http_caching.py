"""Handlers that say in HTTP's own words how they may be cached, and nothing to the cache.

Run it with `uvicorn examples.http_caching:app`; each answer's `Cache-Status` header says where it came from:

    curl -i localhost:8000/articles/tea       made, and stored for ten seconds; after that `fwd=stale; fwd-status=304`
    curl -i localhost:8000/articles           stored for a minute
    curl -i localhost:8000/articles/tea -X PUT -H 'content-type: application/json' -d '{"text": "Cold brew."}'
    curl -i localhost:8000/articles           made anew, and so is /articles/tea
"""

from typing import Annotated

from fastapi import FastAPI, Header, HTTPException, Response
from pydantic import BaseModel

from asgi_tiercache import TierCache, TierCacheMiddleware

app = FastAPI()
app.add_middleware(TierCacheMiddleware, cache=TierCache())


class Article(BaseModel):
    """An article; `version` is counted by us, one up for each edit."""

    text: str
    version: int = 1


ARTICLES = {"tea": Article(text="Three minutes."), "coffee": Article(text="Four minutes.")}


@app.get("/articles")
def titles(response: Response) -> list[str]:
    """Every title: one of the group that an edit invalidates."""
    response.headers["Cache-Control"] = "max-age=60"
    response.headers["Cache-Groups"] = '"articles"'
    return [f"{title}, version {article.version}" for title, article in ARTICLES.items()]


@app.get("/articles/{title}", response_model=Article)
def read(title: str, if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """One article. Once the stored answer is stale, the cache asks with its `ETag`: then 304 saves making a new one."""
    if title not in ARTICLES:
        raise HTTPException(404)
    article = ARTICLES[title]
    headers = {"ETag": f'"{title}-{article.version}"', "Cache-Control": "max-age=10, stale-if-error=3600"}
    if if_none_match == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(article.model_dump_json(), media_type="application/json", headers=headers)


@app.put("/articles/{title}", status_code=204)
def edit(title: str, article: Article, response: Response) -> None:
    """Replace an article. Like every successful PUT that purges its own path; the group is purged because we say so."""
    version = ARTICLES[title].version + 1 if title in ARTICLES else 1
    ARTICLES[title] = Article(text=article.text, version=version)
    response.headers["Cache-Group-Invalidation"] = '"articles"'
