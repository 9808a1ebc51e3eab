"""SQLAlchemy and Django's own database backend, on the printed string."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql

from tests.stack import Stack

pytestmark = pytest.mark.stack

SCHEMA = "frameworks"


class Model(orm.DeclarativeBase):
    """The tables of the two SQLAlchemy tests."""

    metadata = sa.MetaData(schema=SCHEMA)


class Author(Model):
    __tablename__ = "author"

    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(sa.Text, unique=True)
    books: orm.Mapped[list[Book]] = orm.relationship(back_populates="author")


class Book(Model):
    __tablename__ = "book"

    key: orm.Mapped[uuid.UUID] = orm.mapped_column(primary_key=True, default=uuid.uuid4)
    author_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey(Author.id))
    price: orm.Mapped[Decimal] = orm.mapped_column(sa.Numeric(10, 2))
    tags: orm.Mapped[list[str]] = orm.mapped_column(postgresql.ARRAY(sa.Text))
    facts: orm.Mapped[dict[str, object]] = orm.mapped_column(postgresql.JSONB)
    author: orm.Mapped[Author] = orm.relationship(back_populates="books")


@pytest.fixture
def engine(stack: Stack) -> Iterator[sa.Engine]:
    """SQLAlchemy's pool on the demo instance, with empty tables."""
    uri = stack.connection("demo", "relational").uri
    engine = sa.create_engine(uri.replace("postgresql://", "postgresql+psycopg://"), pool_size=3)
    with engine.begin() as connection:
        connection.execute(sa.schema.DropSchema(SCHEMA, cascade=True, if_exists=True))
        connection.execute(sa.schema.CreateSchema(SCHEMA))
    Model.metadata.create_all(engine)
    yield engine
    engine.dispose()


def test_sqlalchemy_core_creates_inserts_and_reflects(engine: sa.Engine) -> None:
    authors = Author.__table__
    with engine.begin() as connection:
        made = connection.execute(
            sa.insert(authors).returning(authors.c.id, sort_by_parameter_order=True),
            [{"name": f"author {number}"} for number in range(1500)],
        )
        assert [row.id for row in made] == list(range(1, 1501))
    with engine.connect() as connection:
        found = connection.execute(
            sa.select(sa.func.count(), sa.func.max(authors.c.name)).where(authors.c.id > 1000)
        )
        assert found.one() == (500, "author 1499")
        streamed = connection.execution_options(yield_per=100).execute(sa.select(authors.c.id))
        assert sum(streamed.scalars()) == 1500 * 1501 // 2
    reflected = sa.MetaData(schema=SCHEMA)
    reflected.reflect(engine)
    keys = reflected.tables[f"{SCHEMA}.book"].foreign_keys
    assert [key.target_fullname for key in keys] == [f"{SCHEMA}.author.id"]


def test_sqlalchemys_session_keeps_and_rolls_back(engine: sa.Engine) -> None:
    with orm.Session(engine) as session:
        ann = Author(name="Ann", books=[
            Book(price=Decimal("9.99"), tags=["a", "b"], facts={"pages": 10}),
            Book(price=Decimal("20.00"), tags=[], facts={"pages": 20}),
        ])  # fmt: skip
        session.add(ann)
        session.commit()
        with pytest.raises(sa.exc.IntegrityError), session.begin_nested():
            session.add(Author(name="Ann"))
            session.flush()
        session.add(Author(name="Ben"))
        session.commit()
    with orm.Session(engine) as session:
        assert session.scalars(sa.select(Author.name).order_by(Author.name)).all() == ["Ann", "Ben"]
        book = session.scalars(
            sa.select(Book).where(Book.facts["pages"].as_integer() == 10, Book.tags.contains(["b"]))
        ).one()
        assert (book.price, book.author.name, book.tags) == (Decimal("9.99"), "Ann", ["a", "b"])
        session.delete(book)
        session.rollback()
        assert session.scalar(sa.select(sa.func.count()).select_from(Book)) == 2


def test_sqlalchemy_sets_the_isolation_level(engine: sa.Engine) -> None:
    serializable = engine.execution_options(isolation_level="SERIALIZABLE")
    with serializable.connect() as connection:
        shown = connection.scalar(sa.text("SHOW transaction_isolation"))
        assert shown == "serializable"
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SHOW transaction_isolation")) == "read committed"


# A program of its own: Django's settings are the process's, and ours are in use here.
DJANGO_PROGRAM = """
import json, os
from urllib.parse import urlsplit

import django
from django.conf import settings

uri = urlsplit(os.environ["URI"])
settings.configure(
    INSTALLED_APPS=["library"], USE_TZ=True, DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DATABASES={"default": {
        "ENGINE": "django.db.backends.postgresql", "NAME": "weftkit", "HOST": uri.hostname,
        "PORT": uri.port, "USER": uri.username, "PASSWORD": uri.password, "CONN_MAX_AGE": 60,
        "OPTIONS": {
            "sslmode": "verify-full", "sslrootcert": os.environ["CA"],
            "server_side_binding": True, "options": "-c search_path=frameworks_django",
        },
    }},
)
django.setup()

from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.db.models import Count, F, Sum
from library.models import Author, Book

with connection.cursor() as cursor:
    cursor.execute("DROP SCHEMA IF EXISTS frameworks_django CASCADE")
    cursor.execute("CREATE SCHEMA frameworks_django")
call_command("makemigrations", "library", verbosity=0)
call_command("migrate", verbosity=0)

ann = Author.objects.create(name="Ann")
Book.objects.bulk_create(
    [Book(author=ann, price=n, facts={"pages": n}) for n in range(1, 1001)], batch_size=300
)
try:
    with transaction.atomic():
        Author.objects.create(name="Ben")
        try:
            with transaction.atomic():  # a savepoint
                Author.objects.create(name="Ann")
        except IntegrityError as refused:
            inner = refused.__cause__.sqlstate
        names_inside = list(Author.objects.order_by("name").values_list("name", flat=True))
        raise RuntimeError
except RuntimeError:
    pass
with transaction.atomic():
    locked = Author.objects.select_for_update().get(name="Ann")
Book.objects.filter(facts__pages__gt=990).update(price=F("price") + 0.5)
print(json.dumps({
    "inner": inner,
    "names_inside": names_inside,
    "names_after": list(Author.objects.values_list("name", flat=True)),
    "locked": locked.name,
    "dear": [str(b.price) for b in Book.objects.filter(price__gt=999).order_by("price")],
    "sum": str(Author.objects.annotate(sum=Sum("book__price")).get().sum),
    "counted": Author.objects.aggregate(n=Count("book"))["n"],
    "streamed": sum(1 for _ in Book.objects.iterator(chunk_size=100)),
    "tables": sorted(connection.introspection.table_names()),
    "tls": connection.connection.pgconn.ssl_in_use,
}))
"""

DJANGO_MODELS = """
from django.db import models


class Author(models.Model):
    name = models.TextField(unique=True)


class Book(models.Model):
    author = models.ForeignKey(Author, on_delete=models.CASCADE)
    price = models.DecimalField(max_digits=10, decimal_places=2, db_index=True)
    facts = models.JSONField()
    made_at = models.DateTimeField(auto_now_add=True)
"""


def test_djangos_backend_migrates_stores_and_rolls_back(stack: Stack, tmp_path: Path) -> None:
    app = tmp_path / "library"
    (app / "migrations").mkdir(parents=True)
    for name, text in {"__init__": "", "models": DJANGO_MODELS, "migrations/__init__": ""}.items():
        (app / f"{name}.py").write_text(text)
    program = tmp_path / "program.py"
    program.write_text(DJANGO_PROGRAM)
    environment = {name: value for name, value in os.environ.items() if "DJANGO" not in name}
    done = subprocess.run(
        [sys.executable, program], cwd=tmp_path, capture_output=True, text=True,
        env={**environment, "URI": stack.connection("demo", "relational").uri, "CA": stack.ca},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "inner": "23505",
        "names_inside": ["Ann", "Ben"],
        "names_after": ["Ann"],
        "locked": "Ann",
        "dear": ["999.50", "1000.50"],
        "sum": "500505.00",
        "counted": 1000,
        "streamed": 1000,
        "tables": ["django_migrations", "library_author", "library_book"],
        "tls": True,
    }
