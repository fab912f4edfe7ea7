from django.urls import include, path

urlpatterns = [path("lrp/", include("django_app.urls"))]
