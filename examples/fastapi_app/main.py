"""
A program with a table of its own, which enqueues runs in its own transactions.

Both kinds of rows are in one database. An order is there together with its run, or neither is.
"""

import os
from collections.abc import Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from sqlmodel import Field, Session, SQLModel, create_engine

import leasehold

engine = create_engine(os.environ["DATABASE_URL"])


class Order(SQLModel, table=True):
    """What a customer wants to know, and the run that finds it out."""

    __tablename__ = "shop_orders"
    id: int | None = Field(default=None, primary_key=True)
    question: str
    run_id: str


@asynccontextmanager
async def lifespan(_app: FastAPI) -> Any:
    """Make our own table; Leasehold's were made by `leasehold up` or `leasehold db upgrade`."""
    SQLModel.metadata.create_all(engine, tables=[SQLModel.metadata.tables["shop_orders"]])
    yield


app = FastAPI(title="A shop that counts words", lifespan=lifespan)


def transaction() -> Iterator[Session]:
    """One transaction a request; it ends before the answer goes out."""
    with Session(engine) as session, session.begin():
        yield session


OneTransaction = Annotated[Session, Depends(transaction, scope="function")]


@app.post("/orders", status_code=201)
def create(question: str, session: OneTransaction) -> dict[str, Any]:
    """Take an order: one commit for it and for its run, or, if anything fails, none."""
    run = leasehold.enqueue(session, ["wc", "-w"], stdin=question, labels={"app": "shop"})
    order = Order(question=question, run_id=run.id)
    session.add(order)
    session.flush()
    if not question.strip():
        raise HTTPException(422, "ask something")  # neither the order nor its run is there
    return {"id": order.id, "run_id": order.run_id}


@app.get("/orders/{order_id}")
def show(order_id: int) -> dict[str, Any]:
    """Show an order and how far its run is; LEASEHOLD_API_URL and _TOKEN say where to ask."""
    with Session(engine) as session:
        order = session.get(Order, order_id)
    if order is None:
        raise HTTPException(404, "there is no such order")
    with leasehold.Client() as client:
        run = client.runs.get(order.run_id)
        words = run.output().decode().strip() if run.ok else None
    return {"question": order.question, "status": run.status, "words": words}
